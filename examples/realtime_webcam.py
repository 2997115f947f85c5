"""The calibrated mesh over a live picture, in a window or, headless, in the browser.

python examples/realtime_webcam.py                      # the first camera
python examples/realtime_webcam.py rtsp://host/stream
python examples/realtime_webcam.py walk.mp4 --headless --frames 100
"""

import argparse
from contextlib import closing
from pathlib import Path

from pchmr.live import Browser, LiveSession, Topologies, Window, names_of_recordings, open_live


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", default="0", help="camera, stream or video file")
    parser.add_argument("--headless", action="store_true", help="in the browser")
    parser.add_argument("--frames", type=int, help="stop after so many")
    given = parser.parse_args()
    with (
        open_live(given.source) as source,
        Topologies("open", "parallel", max_people=2) as topologies,
    ):
        recordings = names_of_recordings(Path("out"), source, given.source)
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
    main()
