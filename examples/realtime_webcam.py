"""The calibrated mesh over a live picture, in a window or, headless, in the browser.

python examples/realtime_webcam.py                      # the first camera
python examples/realtime_webcam.py rtsp://host/stream
python examples/realtime_webcam.py demo --headless --frames 100   # the demo video
"""

import argparse
import sys
from contextlib import closing
from pathlib import Path

from pchmr.assets import fetch
from pchmr.live import Browser, LiveSession, Topologies, Window, names_of_recordings, open_live
from pchmr_engines.errors import PchmrError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", default="0", help="camera, stream, video or demo")
    parser.add_argument("--headless", action="store_true", help="in the browser")
    parser.add_argument("--frames", type=int, help="stop after so many")
    given = parser.parse_args()
    spec = str(fetch("demo_video")) if given.source == "demo" else given.source
    with (
        open_live(spec) as source,
        Topologies("open", "parallel", max_people=2, smooth=True) as topologies,
    ):
        recordings = names_of_recordings(Path("out"), source, spec)
        faces = topologies.current.body.faces
        viewer = Browser(faces) if given.headless else Window(faces)
        if isinstance(viewer, Browser):
            print(f"look at {viewer.url}")
        session = LiveSession(source, topologies, recordings=recordings, frames=given.frames)
        with session, closing(viewer):
            session.run(viewer)
    ms = session.log.summary()["camera_to_mesh_ms"]
    print(f"{session.log.frames} frames, {source.dropped} dropped, camera to mesh in ms: {ms}")


if __name__ == "__main__":
    try:
        main()
    except PchmrError as error:  # as when there is no camera
        sys.exit(str(error))
