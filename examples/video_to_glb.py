"""The people in a video as one GLB animation, exact vertices, for Blender or any glTF viewer.

python examples/video_to_glb.py                     # the demo video
python examples/video_to_glb.py walk.mp4 walk.glb
"""

import sys
import tempfile
from pathlib import Path

from pchmr import Pipeline
from pchmr.assets import fetch
from pchmr.exchange.glb import write_glb
from pchmr.exchange.recording import read_recording
from pchmr.media import open_source
from pchmr.results import ResultWriter
from pchmr_engines.errors import PchmrError


def main(video: str = "", glb: str = "people.glb") -> None:
    pipe = Pipeline.load("open", topology="parallel", max_people=2, smooth=True)
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results.npz")  # grows on disk, not in memory
        with (
            open_source(video or fetch("demo_video")) as source,
            ResultWriter(results, pipe.body.faces, bundle=pipe.bundle) as writer,
        ):
            for frame in source:
                writer.add(frame.index, pipe(frame.image, frame.t_ns))
        recording = read_recording(results)
    write_glb(glb, recording)
    print(f"{glb}: {recording.describe()}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except PchmrError as error:
        sys.exit(str(error))
