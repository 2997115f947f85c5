"""The verb `pchmr train`."""

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from pchmr_engines.errors import InputError, MissingDependency
from pchmr_engines.store import sha256_of
from pchmr_kernels.skeletons import SKELETONS

train = typer.Typer(help="Train parts of PC-HMR.", no_args_is_help=True)


@train.callback()
def _verbs() -> None:
    """Train parts of PC-HMR."""
    if find_spec("torch") is None:
        raise MissingDependency("torch", "train", "pchmr train")


@train.command()
def calibration(
    body: Annotated[Path, typer.Option(help="SMPL .pkl or .npz, or an open body's .npz.")],
    skeleton: Annotated[str, typer.Option(help="Of the target joints: smpl24, h36m17, coco17 ...")],
    motion: Annotated[
        Path, typer.Option(help="clips.npz, an AMASS .npz, or a folder of either; no images.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .npz to write.")],
    regressor: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE.npy: joints of a skeleton that the body file lacks."),
    ] = None,
    bones: Annotated[int, typer.Option(min=1, max=8, help="Bones a vertex follows.")] = 4,
    steps: Annotated[int, typer.Option(min=1)] = 1500,
    batch: Annotated[int, typer.Option(min=1)] = 8,
    seed: int = 0,
    rigid: Annotated[bool, typer.Option(help="Leave bone lengths alone (Table 3, I).")] = False,
    self_rotation: Annotated[bool, typer.Option(help="Learn twists (Table 3, V).")] = False,
    shape_compensation: Annotated[
        bool, typer.Option(help="Learn pose blend shapes, where the body has them (Table 3, VI).")
    ] = True,
) -> None:
    """Train the calibration's A and W for a body and a skeleton, in minutes on one CPU thread."""
    from pchmr.bodies import load_body

    from .calibration import Options
    from .calibration_file import write_calibration
    from .data import read_clips
    from .train_calibration import Settings, train

    if skeleton not in SKELETONS:
        raise InputError(f"--skeleton {skeleton}: expected one of {', '.join(SKELETONS)}")
    _make_folder_of(out)
    loaded = load_body(body, regressors=dict(map(_name_and_file, regressor or [])))
    settings = Settings(steps=steps, batch=batch, bones=bones, seed=seed)
    options = Options(
        non_rigid=not rigid,
        self_rotation=self_rotation,
        shape_compensation=None if shape_compensation else False,
    )
    chosen = {
        "--rigid": rigid,
        "--self-rotation": self_rotation,
        "--no-shape-compensation": not shape_compensation,
    }
    trained = train(loaded, skeleton, read_clips(motion), settings, options)
    meta = {
        **trained.meta,
        "command": f"pchmr train calibration --body {body.name} --skeleton {skeleton} --motion "
        f"{motion.name} --bones {bones} --steps {steps} --batch {batch} --seed {seed}"
        + "".join(f" {flag}" for flag, is_on in chosen.items() if is_on),
        "body_sha256": sha256_of(body),
    }
    write_calibration(out, replace(trained, meta=meta))
    typer.echo(
        f"mean vertex error on {meta['held_out_frames']} held-out frames: "
        f"{meta['mpve_source_mm']:.1f} mm as generated, {meta['mpve_untrained_mm']:.2f} mm with "
        f"untrained weights, {meta['mpve_trained_mm']:.2f} mm trained\n{out}"
    )


def _make_folder_of(out: Path) -> None:
    """Sees that the file can be written before minutes go into what it will hold."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"-o {out}: {error.strerror}; expected a .npz to write") from error
    if out.is_dir():
        raise InputError(f"-o {out} is a folder; expected a .npz to write")
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"-o {out}: its folder may not be written to; name another one")


def _name_and_file(text: str) -> tuple[str, str]:
    name, _, file = text.partition("=")
    if not file:
        raise InputError(f"--regressor {text}: expected NAME=FILE.npy, as h36m17=regressor.npy")
    return name, file
