"""Pictures in, pictures out: `open_source`, `VideoWriter`, `read_photo`, `write_photo`."""

from .photos import Image, read_photo, write_photo
from .readers import Frame
from .sources import Source, open_source
from .writers import VideoWriter

__all__ = [
    "Frame",
    "Image",
    "Source",
    "VideoWriter",
    "open_source",
    "read_photo",
    "write_photo",
]
