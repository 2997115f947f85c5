"""Where a frame's time goes, camera to mesh, on your camera, stream or video.

python examples/latency_profile.py            # the demo video, as if it were a camera
python examples/latency_profile.py 0          # the first camera
python examples/latency_profile.py walk.mp4 50  # frames
"""

import sys

from pchmr import Pipeline
from pchmr.assets import fetch
from pchmr.profiling.frames import timed_frames
from pchmr.profiling.measure import measure
from pchmr.profiling.recorder import Recorder
from pchmr.profiling.report import summary_of
from pchmr_engines.errors import PchmrError


def main(source: str = "", frames: str = "200") -> None:
    recorder = Recorder()
    pipe = Pipeline.load("open", topology="parallel", recorder=recorder)
    with timed_frames(source or str(fetch("demo_video")), live=True) as timed:
        measured = measure(pipe, recorder, timed, int(frames), draw=False)
    figures = summary_of(measured, pipe.bundle.manifest)
    ms = figures["camera_to_mesh_ms"]
    print(f"camera to mesh: p50 {ms['p50']} ms, p95 {ms['p95']} ms, {figures['dropped']} dropped")
    print(f"that is {figures['includes']}; not in it: {figures['excludes']}")
    for part in figures["parts"]:
        name = f"{part['kind']} {part['name']}"
        print(f"{name:24} p50 {part['ms']['p50']:8.3f} ms, p95 {part['ms']['p95']:8.3f} ms")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except PchmrError as error:
        sys.exit(str(error))
