"""Fixtures of the parity kit's `prepost`: what the originals made of synthetic pictures."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pchmr_engines.errors import InputError

from ..crops import Box
from .crops import Floats, Size
from .synthetic import synthetic_heatmaps, synthetic_image

Outputs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class PrepostFixture:
    """One prepost_*.npz. meta: what was run; values: inputs, and expected outputs with a stride."""

    path: Path
    meta: Mapping[str, Any]
    values: Mapping[str, NDArray[Any]]

    @classmethod
    def read(cls, path: Path) -> "PrepostFixture":
        """Raises: InputError when the file is no fixture."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                values = {name: arrays[name] for name in arrays.files}
            meta = json.loads(str(values.pop("meta")))
            return cls(path, {"outputs": meta["outputs"], **meta}, values)
        except KeyError as error:
            raise InputError(f"{path} is not a prepost fixture: it has no {error}") from error
        except (OSError, ValueError, TypeError, BadZipFile) as error:
            raise InputError(f"{path} is not a prepost fixture: {error}") from error

    def __getitem__(self, name: str) -> NDArray[Any]:
        """An input, or an expected value."""
        if name not in self.values:
            raise InputError(f"{self.path.name} has no array {name!r}")
        return self.values[name]

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        """The synthetic picture, (H, W, 3) BGR."""
        return synthetic_image(self.meta["key"], self.image_size)

    @property
    def image_size(self) -> Size:
        return self.meta["image"]["height"], self.meta["image"]["width"]

    @property
    def size(self) -> Size:
        """Of the network's input."""
        height, width = self.meta["network_size_hw"]
        return height, width

    @property
    def boxes(self) -> list[Box]:
        """Stored as x, y, width, height."""
        return [(x, y, x + w, y + h) for x, y, w, h in self["boxes"].tolist()]

    def heatmaps(
        self, size: Size, gain: float = 1.0, on_grid: bool = True
    ) -> tuple[Floats, Floats]:
        return synthetic_heatmaps(self.meta["key"], len(self.boxes), size, gain, on_grid)

    def named(self, pattern: str) -> Iterator[tuple[str, re.Match[str]]]:
        """The outputs whose whole name is like the pattern."""
        for name in self.meta["outputs"]:
            match = re.fullmatch(pattern, name)
            if match:
                yield name, match

    def ratios(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """Error over tolerance of every output, the worse of largest and mean; infinite where it
        was not computed, has another shape or is not finite."""
        return {
            name: _ratio(np.asarray(outputs[name], np.float64), expected, self[name])
            if name in outputs
            else np.inf
            for name, expected in self.meta["outputs"].items()
        }


def _ratio(got: NDArray[np.float64], expected: Mapping[str, Any], values: NDArray[Any]) -> float:
    if list(got.shape) != expected["shape"] or not np.isfinite(got).all():
        return np.inf
    error = np.abs(got.reshape(-1)[:: expected.get("stride", 1)] - values.reshape(-1))
    mean = float(error.mean()) if error.size else 0.0
    if "sum" in expected:  # sums over the whole array, as a mean error
        sums = got.sum() - expected["sum"], np.abs(got).sum() - expected["abs_sum"]
        mean = max(mean, *(abs(float(total)) / got.size for total in sums))
    allowed = expected["tol"], expected.get("tol_mean", expected["tol"])
    pairs = zip((float(error.max(initial=0)), mean), allowed, strict=True)
    return max(value / max(tolerance, 1e-30) for value, tolerance in pairs)
