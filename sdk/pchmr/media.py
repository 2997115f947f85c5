"""Pictures in, pictures out: `open_source`, `VideoWriter`, `read_photo`, `write_photo`."""

from pchmr.photos import Image, read_photo, write_photo
from pchmr.readers import Frame
from pchmr.sources import Source, open_source
from pchmr.writers import VideoWriter

__all__ = [
    "Frame",
    "Image",
    "Source",
    "VideoWriter",
    "open_source",
    "read_photo",
    "write_photo",
]
