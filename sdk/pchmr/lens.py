"""What is known of a camera before its frames have a size: from a file, flags, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pchmr_engines.errors import InputError

from .camera import Camera


@dataclass(frozen=True)
class Lens:
    """focal_px: the frame's diagonal where unknown. center: (x, y) px, by default the middle.

    distortion: OpenCV's k1, k2, p1, p2 and, if there are more, k3 ...
    """

    focal_px: float | None = None
    center: tuple[float, float] | None = None
    distortion: tuple[float, ...] = ()

    def of_size(self, width: int, height: int) -> Camera:
        """The camera of frames of that size."""
        known = Camera.from_size(width, height)
        focal_px = known.fx if self.focal_px is None else self.focal_px
        cx, cy = (known.cx, known.cy) if self.center is None else self.center
        return Camera(focal_px, focal_px, cx, cy, self.distortion)


def read_lens(
    file: Path | None, focal_px: float | None, center: str | None, distortion: str | None
) -> Camera | Lens:
    """A camera from the command line: a JSON file, or flags, center and distortion as "0.1,0.2".

    Raises: InputError for both, or for numbers that are no camera's.
    """
    if file is not None:
        if (focal_px, center, distortion) != (None, None, None):
            raise InputError(
                f"camera {file} beside --focal, --center or --distortion: give the file, or flags"
            )
        return Camera.from_json(file)
    middle = _numbers(center, "--center")
    if center is not None and len(middle) != 2:
        raise InputError(f"--center is {center}; expected x,y in pixels")
    lens = Lens(
        focal_px, (middle[0], middle[1]) if middle else None, _numbers(distortion, "--distortion")
    )
    lens.of_size(1, 1)  # says now what is impossible
    return lens


def _numbers(text: str | None, flag: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(",")) if text is not None else ()
    except ValueError as error:
        raise InputError(f"{flag} is {text!r}; expected numbers with commas between") from error
