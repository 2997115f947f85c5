"""Weights on a GPU: rows sorted by their bones, so that threads side by side read the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from pchmr_kernels.cuda_runtime import FLOAT32, Runtime, View, refuse, shape_of, view
from pchmr_kernels.weights import SparseWeights, WeightsStruct

TILE = 128  # vertices, as in native/pchmr_cuda.h


@dataclass(frozen=True, eq=False)
class DenseWeights:
    """A (V, K) and A * W (V, K) on the GPU, float32: for training. Without A * W: skinning only."""

    values: Any
    offsets: Any = None


@dataclass(frozen=True)
class Uploaded:
    """As the kernels read them; `arrays` keeps them alive."""

    struct: WeightsStruct
    places: int | None
    bones_needed: int
    arrays: tuple[Any, ...]


# By device; they go when the weights go.
_uploaded: WeakKeyDictionary[SparseWeights, dict[int, Uploaded]] = WeakKeyDictionary()


def upload_weights(
    run: Runtime, weights: SparseWeights | DenseWeights, bones: int, stretch: bool
) -> Uploaded:
    """Of the current device. Sparse ones are kept there as long as they live."""
    if not isinstance(weights, SparseWeights):
        return _dense(run, weights, bones, stretch)
    kept = _uploaded.setdefault(weights, {})
    if run.device() not in kept:
        order = tile_order(weights)
        kept[run.device()] = upload_rows(run, weights, order)
    return kept[run.device()]


def upload_rows(
    run: Runtime, weights: SparseWeights, order: npt.NDArray[np.intp], slots: int = 0
) -> Uploaded:
    """Rows in that order, see `tile_order`; of at least so many slots."""
    tables = [table[order] for table in _by_bone(weights, slots)]
    places = (order - np.arange(len(order)) // TILE * TILE).astype(np.uint8)
    arrays = tuple(run.upload(table) for table in (*tables, places))
    pointers = [
        view(run, "weights", array, None, (np.int32, np.float32, np.uint8)).pointer
        for array in arrays
    ]
    struct = WeightsStruct(*tables[0].shape, *pointers[:3])
    return Uploaded(struct, pointers[3], weights.bones_needed, arrays)


def tile_order(weights: SparseWeights) -> npt.NDArray[np.intp]:
    """(V,): the rows of each tile of vertices, sorted by their bones."""
    indices = _by_bone(weights)[0]
    tiles = np.arange(len(indices)) // TILE
    return np.lexsort((*indices.T[::-1], tiles))


def _by_bone(weights: SparseWeights, slots: int = 0) -> tuple[npt.NDArray[Any], ...]:
    """Indices, values and offsets: rows by rising bone, padded to 4 or 8 with one of their own."""
    slots = max(slots, weights.indices.shape[1])
    padding = ((0, 0), (0, slots + -slots % 4 - weights.indices.shape[1]))
    indices = np.pad(weights.indices, padding)
    values, offsets = (np.pad(x, padding) for x in (weights.values, weights.offsets))
    indices = np.where((values != 0) | (offsets != 0), indices, indices[:, :1])
    rising = np.argsort(indices, axis=1, kind="stable")
    return tuple(np.take_along_axis(x, rising, 1) for x in (indices, values, offsets))


def _dense(run: Runtime, weights: DenseWeights, bones: int, stretch: bool) -> Uploaded:
    shape = shape_of("weights.values", weights.values, 2)
    refuse(shape[1] != bones, f"weights.values is {shape}; there are {bones} bones")
    refuse(stretch and weights.offsets is None, "weights.offsets, A * W, is missing")
    pairs = (("values", weights.values), ("offsets", weights.offsets))
    views: list[View] = [view(run, f"weights.{name}", x, shape, FLOAT32) for name, x in pairs]
    struct = WeightsStruct(*shape, None, *(each.pointer for each in views))
    return Uploaded(struct, None, bones, (weights.values, weights.offsets))
