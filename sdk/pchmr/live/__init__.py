"""Live input: capture, inference, display and recording, each in a thread of its own.

    with open_live(0) as source, Topologies("open", "parallel") as topologies:
        viewer = Window(topologies.current.body.faces)
        with LiveSession(source, topologies) as session, closing(viewer):
            session.run(viewer)

docs/realtime.md says which thread may use what.
"""

from .browser import Browser
from .capture import open_live
from .recorder import Recorder, names_of_recordings
from .result import Result, Status, readout
from .session import LiveSession
from .timing import FrameTiming, TimingLog
from .topologies import Topologies
from .viewer import Action, Figures, View, Viewer
from .window import Window

__all__ = [
    "Action",
    "Browser",
    "Figures",
    "FrameTiming",
    "LiveSession",
    "Recorder",
    "Result",
    "Status",
    "TimingLog",
    "Topologies",
    "View",
    "Viewer",
    "Window",
    "names_of_recordings",
    "open_live",
    "readout",
]
