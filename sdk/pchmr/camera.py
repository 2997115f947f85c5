"""Pinhole cameras: where points in front of the camera fall in the picture."""

import json
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pchmr_engines.errors import InputError

NEAREST_M = 1e-6
"""Points nearer, or behind the camera, are projected as if they stood here."""


@dataclass(frozen=True)
class Camera:
    """Intrinsics in pixels of the full frame; the camera looks along z, x right, y down.

    Pixel (0, 0) is the centre of the first pixel, as in OpenCV.

    fx, fy: focal lengths; cx, cy: principal point; distortion: OpenCV's k1, k2, p1, p2 and, if
    there are more, k3 ..., empty for none.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if not all(math.isfinite(number) for number in numbers) or min(self.fx, self.fy) <= 0:
            raise InputError(f"{self}: expected finite numbers and focal lengths above 0 pixels")
        if len(self.distortion) not in (0, 4, 5, 8, 12, 14):
            raise InputError(
                f"{len(self.distortion)} distortion coefficients; expected 0, 4, 5, 8, 12 or 14 "
                "in OpenCV's order (k1, k2, p1, p2, k3, ...)"
            )

    @classmethod
    def from_size(cls, width: int, height: int) -> "Camera":
        """The camera assumed when none is known: f = sqrt(width^2 + height^2), a diagonal field
        of view of 53 degrees, looking through the middle of the picture."""
        focal_px = math.hypot(width, height)
        return cls(focal_px, focal_px, width / 2, height / 2)

    def of_size(self, width: int, height: int) -> "Camera":
        """This camera, whose frames have one size; see `lens.Lens`."""
        return self

    @classmethod
    def from_json(cls, path: Path | str) -> "Camera":
        """Read {"fx": ..., "fy": ..., "cx": ..., "cy": ..., "distortion": [...]} (the last may
        be left out).

        Raises:
            InputError: the file cannot be read or holds something else.
        """
        names = ("fx", "fy", "cx", "cy")

        def refusal(why: str) -> InputError:
            return InputError(
                f"{path} is no camera ({why}); expected JSON with {', '.join(names)} in pixels "
                "and, if wanted, distortion"
            )

        try:
            fields: Any = json.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise refusal(str(error.strerror)) from error
        except ValueError as error:
            raise refusal("it is no JSON") from error
        if not isinstance(fields, dict):
            raise refusal("it is no JSON object")
        if fields.keys() - {"distortion"} != set(names):
            raise refusal(f"it has {', '.join(fields) or 'nothing'}")
        try:
            distortion = tuple(float(number) for number in fields.get("distortion", ()))
            return cls(**{name: float(fields[name]) for name in names}, distortion=distortion)
        except (TypeError, ValueError) as error:
            raise refusal("not all of it is numbers") from error

    @cached_property
    def lens(self) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy: the camera without its distortion."""
        return self.fx, self.fy, self.cx, self.cy

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """The (3, 3) intrinsic matrix."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    @property
    def pinhole(self) -> "Camera":
        """The same camera without distortion: what sees `undistort`ed pixels."""
        return replace(self, distortion=()) if self.distortion else self

    def scaled(self, scale: float) -> "Camera":
        """The same camera for pictures resized by `scale` (pixel centres kept in place)."""
        shift = 0.5 * (scale - 1)
        return Camera(
            self.fx * scale,
            self.fy * scale,
            self.cx * scale + shift,
            self.cy * scale + shift,
            self.distortion,
        )

    def project(self, points: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        """Pixels (..., 2) of points (..., 3), metres, camera frame, in the same dtype."""
        depth = np.maximum(points[..., 2:], NEAREST_M)
        if not self.distortion:
            focal = np.array([self.fx, self.fy], points.dtype)
            return points[..., :2] / depth * focal + np.array([self.cx, self.cy], points.dtype)
        rays = np.concatenate([points[..., :2] / depth, np.ones_like(depth)], -1)
        if not rays.size:
            return points[..., :2]
        zero = np.zeros(3)
        flat = rays.reshape(-1, 1, 3).astype(np.float64)
        pixels, _ = cv2.projectPoints(flat, zero, zero, self.matrix, np.array(self.distortion))
        return np.asarray(pixels).reshape(*points.shape[:-1], 2).astype(points.dtype)

    def undistort(self, pixels: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        """Where pixels (..., 2) would fall without distortion, in the same dtype."""
        if not self.distortion or not pixels.size:
            return pixels
        flat = pixels.reshape(-1, 1, 2).astype(np.float64)
        straight = cv2.undistortPoints(flat, self.matrix, np.array(self.distortion), P=self.matrix)
        return np.asarray(straight).reshape(pixels.shape).astype(pixels.dtype)
