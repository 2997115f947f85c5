"""Reads a .tflite file: the tensors, constants and operators of its one graph.

The format is a FlatBuffer: tables whose fields are found through a table of offsets. The package
`flatbuffers` reads its primitives but has no schema, and the packages that carry the schema bring a
whole runtime (`ai-edge-litert`) or are no longer kept up. A converter needs few fields, so they are
read here, by their numbers in `tensorflow/lite/schema/schema.fbs`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pchmr_engines.errors import InputError

_DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "|u1", 4: "<i8", 9: "|i1"}

# Operator code -> its name and option fields in the schema's order; `i` int32, `b` byte.
_OPERATORS = {
    0: ("ADD", "activation:b"),
    2: ("CONCATENATION", "axis:i activation:b"),
    3: ("CONV_2D", "padding:b stride_w:i stride_h:i activation:b dilation_w:i dilation_h:i"),
    4: (
        "DEPTHWISE_CONV_2D",
        "padding:b stride_w:i stride_h:i multiplier:i activation:b dilation_w:i dilation_h:i",
    ),
    5: ("DEPTH_TO_SPACE", "block:i"),
    6: ("DEQUANTIZE", ""),
    14: ("LOGISTIC", ""),
    17: ("MAX_POOL_2D", "padding:b stride_w:i stride_h:i filter_w:i filter_h:i activation:b"),
    22: ("RESHAPE", ""),
    23: ("RESIZE_BILINEAR", "height:i width:i align_corners:b half_pixel:b"),
    34: ("PAD", ""),
    124: ("DENSIFY", ""),
}
_DEFAULTS = {"dilation_w": 1, "dilation_h": 1}  # of a field that the file leaves out; else 0

# Operators of other image networks, for the message that they are not read.
_OTHER_OPERATORS = {
    1: "AVERAGE_POOL_2D",
    9: "FULLY_CONNECTED",
    18: "MUL",
    19: "RELU",
    21: "RELU6",
    25: "SOFTMAX",
    28: "TANH",
    32: "CUSTOM",
    39: "TRANSPOSE",
    40: "MEAN",
    41: "SUB",
    54: "PRELU",
    67: "TRANSPOSE_CONV",
    97: "RESIZE_NEAREST_NEIGHBOR",
    98: "LEAKY_RELU",
    114: "QUANTIZE",
    117: "HARD_SWISH",
}


@dataclass(frozen=True)
class Tensor:
    """`data`: a constant's value, dense, else None."""

    name: str
    shape: tuple[int, ...]
    data: NDArray[np.generic] | None


@dataclass(frozen=True)
class Operator:
    """`inputs` and `outputs` index the graph's tensors; an input of -1 is left out."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, int]


@dataclass(frozen=True)
class Graph:
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_tflite(path: Path) -> Graph:
    """The graph of a .tflite file, sparse constants made dense.

    Raises:
        InputError: not a whole .tflite file, or an operator or number format that is not read.
    """
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise InputError(f"{path} starts with {data[:8]!r}: expected a .tflite file (TFL3)")
    try:
        return _graph(_Table(data, _unpack("I", data, 0)), path)
    except (struct.error, IndexError, ValueError) as error:
        raise InputError(
            f"{path} ends early or is damaged ({len(data)} bytes; {error}): fetch it again"
        ) from error


def _unpack(code: str, data: bytes, offset: int) -> int:
    if offset < 0:
        raise ValueError(f"offset {offset}")
    value: int = struct.unpack_from(f"<{code}", data, offset)[0]
    return value


@dataclass(frozen=True)
class _Table:
    """One FlatBuffer table; fields by number, as declared in the schema."""

    data: bytes
    start: int

    def _field(self, number: int) -> int | None:
        """Where the field's value lies; None: left out, its default holds."""
        offsets = self.start - _unpack("i", self.data, self.start)
        if 4 + 2 * number >= _unpack("H", self.data, offsets):
            return None
        offset = _unpack("H", self.data, offsets + 4 + 2 * number)
        return self.start + offset if offset else None

    def scalar(self, number: int, code: str, default: int = 0) -> int:
        field = self._field(number)
        return default if field is None else _unpack(code, self.data, field)

    def table(self, number: int) -> _Table | None:
        field = self._field(number)
        return None if field is None else _Table(self.data, field + _unpack("I", self.data, field))

    def vector(self, number: int, dtype: str) -> NDArray[np.generic]:
        field = self._field(number)
        if field is None:
            return np.zeros(0, dtype)
        start = field + _unpack("I", self.data, field)
        return np.frombuffer(self.data, dtype, _unpack("I", self.data, start), start + 4)

    def ints(self, number: int) -> tuple[int, ...]:
        return tuple(self.vector(number, "<i4").tolist())

    def tables(self, number: int) -> list[_Table]:
        field = self._field(number)
        if field is None:
            return []
        offsets = self.vector(number, "<u4")
        first = field + _unpack("I", self.data, field) + 4
        return [_Table(self.data, first + 4 * i + int(o)) for i, o in enumerate(offsets.tolist())]

    def text(self, number: int) -> str:
        return self.vector(number, "|u1").tobytes().decode("utf-8", "replace")


def _graph(model: _Table, path: Path) -> Graph:
    graphs = model.tables(2)
    if len(graphs) != 1:
        raise InputError(f"{path} holds {len(graphs)} graphs: expected one without control flow")
    # An old field of one byte and a new one of four: the larger is the code.
    codes = [max(code.scalar(0, "b"), code.scalar(3, "i")) for code in model.tables(1)]
    buffers = model.tables(4)
    return Graph(
        tensors=tuple(_tensor(tensor, buffers, path) for tensor in graphs[0].tables(0)),
        operators=tuple(_operator(operator, codes, path) for operator in graphs[0].tables(3)),
        inputs=graphs[0].ints(1),
        outputs=graphs[0].ints(2),
    )


def _operator(operator: _Table, codes: list[int], path: Path) -> Operator:
    code = codes[operator.scalar(0, "I")]
    if code not in _OPERATORS:
        name = _OTHER_OPERATORS.get(code, f"number {code} of the schema")
        known = ", ".join(name for name, _ in _OPERATORS.values())
        raise InputError(f"{path} uses the operator {name}: only {known} are read")
    name, fields = _OPERATORS[code]
    options = operator.table(4)
    values = {}
    for number, field in enumerate(fields.split()):
        key, kind = field.split(":")
        default = _DEFAULTS.get(key, 0)
        values[key] = default if options is None else options.scalar(number, kind, default)
    return Operator(name, operator.ints(1), operator.ints(2), values)


def _tensor(tensor: _Table, buffers: list[_Table], path: Path) -> Tensor:
    name, shape = tensor.text(3), tensor.ints(0)
    stored = buffers[tensor.scalar(2, "I")].vector(0, "|u1")
    if stored.size == 0:
        return Tensor(name, shape, None)
    dtype = tensor.scalar(1, "b")
    if dtype not in _DTYPES:
        raise InputError(f"{path}: tensor {name!r} has number format {dtype}, which is not read")
    values = stored.view(_DTYPES[dtype])
    sparsity = tensor.table(6)
    dense = values.reshape(shape) if sparsity is None else _densify(values, shape, sparsity)
    return Tensor(name, shape, dense)


def _densify(
    values: NDArray[np.generic], shape: tuple[int, ...], sparsity: _Table
) -> NDArray[np.generic]:
    """The dense form of a sparse constant.

    The format nests one level per dimension, and per block of a dimension, in `order`; a level is
    dense (every index) or holds, for each entry of the level above, the range of its own indices.
    """
    order, block_dims = sparsity.ints(0), sparsity.ints(1)
    entry = np.zeros(1, np.int64)  # one entry above the first level
    index_of: dict[int, NDArray[np.int64]] = {}
    block_size: dict[int, int] = {}
    for dimension, level in zip(order, sparsity.tables(2), strict=True):
        if level.scalar(0, "b") == 0:
            size = level.scalar(1, "i")
            parent = np.repeat(np.arange(len(entry)), size)
            own = np.tile(np.arange(size), len(entry))
            if dimension >= len(shape):
                block_size[dimension] = size
        else:
            ends, indices = _indices(level, 2), _indices(level, 4)
            counts = np.diff(ends)
            parent = np.repeat(np.arange(len(entry)), counts)
            own = indices[: len(parent)]
        index_of = {done: index[parent] for done, index in index_of.items()} | {dimension: own}
        entry = parent
    for block, dimension in enumerate(block_dims, start=len(shape)):
        index_of[dimension] = index_of[dimension] * block_size[block] + index_of[block]
    dense = np.zeros(shape, values.dtype)
    dense[tuple(index_of[dimension] for dimension in range(len(shape)))] = values
    if len(entry) != values.size or prod(shape) < values.size:
        raise ValueError(f"sparse constant of {values.size} values, {len(entry)} places")
    return dense


def _indices(level: _Table, number: int) -> NDArray[np.int64]:
    """A vector of one of three types: field `number` names its type, the next one holds it."""
    dtype = {1: "<i4", 2: "<u2", 3: "|u1"}[level.scalar(number, "b")]
    vector = level.table(number + 1)
    if vector is None:
        raise ValueError("a sparse level without indices")
    return vector.vector(0, dtype).astype(np.int64)
