"""A checkpoint and a body file become a bundle, and the bundle runs.

    python examples/bring_your_own_checkpoint.py spin_hmr+videopose3d_h36m_243 bundle \
        --checkpoint generator=model_checkpoint.pt --checkpoint lifter=pretrained_h36m_cpn.bin \
        --body SMPL_NEUTRAL.pkl --regressor h36m17=J_regressor_h36m.npy

Without files, or anything at all, weights are made up by name: the bundle is whole, its meshes
mean nothing.
"""

import argparse
import sys
from pathlib import Path

from pchmr import Pipeline
from pchmr.assets import fetch
from pchmr.media import open_source
from pchmr_engines.errors import PchmrError

try:
    from pchmr_export.assemble import export_recipe
    from pchmr_export.ready import ready_recipe
    from pchmr_export.recipe import with_files
except ImportError as error:
    sys.exit(f"{error}: run  pip install 'pchmr[export]'")


def pair(text: str) -> tuple[str, str]:
    name, file = text.split("=", 1)
    return name, file


def main(options: argparse.Namespace) -> None:
    recipe = ready_recipe(options.recipe)
    recipe = with_files(recipe, dict(options.checkpoint), options.body, dict(options.regressor))
    exported = export_recipe(recipe, options.bundle, progress=print)
    for gate in exported.gates:
        print(f"{gate.stage} {gate.output} {gate.backend}: {gate.value:.2g} {gate.unit}")
    with (
        Pipeline(exported.bundle, recipe.topologies[0]) as pipeline,
        open_source(str(fetch("demo_video"))) as video,
    ):
        for _, frame in zip(range(40), video, strict=False):
            for person in pipeline(frame.image):
                print(person.frame, person.vertices.shape, person.valid)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", default="spin_hmr+semgcn_plain", help="networks")
    parser.add_argument("bundle", nargs="?", default="bundle", type=Path)
    parser.add_argument("--checkpoint", type=pair, action="append", default=[])
    parser.add_argument("--regressor", type=pair, action="append", default=[])
    parser.add_argument("--body")
    try:
        main(parser.parse_args())
    except PchmrError as error:
        sys.exit(str(error))
