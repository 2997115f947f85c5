"""Reads TensorFlow checkpoints (V2 bundles) without TensorFlow.

`<prefix>.index` is a table of LevelDB's format: variable name -> where its bytes lie. The arrays
themselves lie raw, little-endian, in `<prefix>.data-0000S-of-0000N`.
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pchmr_engines.errors import InputError

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER_SIZE = 48
# TensorFlow's numbers of the types that a weight can have; others (strings) are passed over.
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 6: "i1", 9: "<i8", 10: "?", 19: "<f2"}


def bundle_prefix(path: Path) -> Path | None:
    """The prefix of the bundle that `path` names by its prefix or one of its files, else None."""
    prefix = Path(re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", str(path)))
    return prefix if Path(f"{prefix}.index").is_file() else None


def read_bundle(prefix: Path) -> dict[str, NDArray[Any]]:
    """Variable name -> array. Raises: InputError for a file that is missing, cut or no bundle."""
    index = Path(f"{prefix}.index").read_bytes()
    if len(index) < FOOTER_SIZE or index[-len(MAGIC) :] != MAGIC:
        raise InputError(
            f"{prefix}.index is cut short, or not the index of a TensorFlow checkpoint"
        )
    try:
        entries = dict(_entries(index))
        shards = _fields(entries.pop(b"")).get(1, [1])[0]
        values = {name.decode(): _fields(entry) for name, entry in entries.items()}
        return {
            name: _array(prefix, shards, name, fields)
            for name, fields in values.items()
            if fields[1][0] in DTYPES
        }
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise InputError(f"{prefix}.index is damaged: copy or download it again") from error


def _entries(index: bytes) -> Iterator[tuple[bytes, bytes]]:
    footer = len(index) - FOOTER_SIZE
    _, at = _varint(index, footer)  # the handle of the meta index: offset, size
    _, at = _varint(index, at)
    offset, at = _varint(index, at)
    size, _ = _varint(index, at)
    for _, handle in _block(index, offset, size):
        offset, at = _varint(handle, 0)
        size, _ = _varint(handle, at)
        yield from _block(index, offset, size)


def _block(index: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; a key repeats the beginning of the one before."""
    if index[offset + size] != 0:
        raise InputError("the checkpoint's index is compressed, which TensorFlow's savers never do")
    block = index[offset : offset + size]
    (restarts,) = struct.unpack_from("<I", block, size - 4)
    at, end, key = 0, size - 4 * (restarts + 1), b""
    while at < end:
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        yield key, block[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(message: bytes) -> dict[int, list[Any]]:
    """Field number -> values of a protocol buffer; nested messages stay bytes."""
    fields: dict[int, list[Any]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        value: Any
        if wire == 0:
            value, at = _varint(message, at)
        else:
            size, at = _varint(message, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
            value = message[at : at + size]
            at += size
        fields.setdefault(number, []).append(value)
    return fields


def _array(prefix: Path, shards: int, name: str, fields: dict[int, list[Any]]) -> NDArray[Any]:
    dtype = np.dtype(DTYPES[fields[1][0]])
    dims = _fields(fields[2][0]).get(2, []) if 2 in fields else []
    shape = tuple(_fields(dim).get(1, [0])[0] for dim in dims)
    shard, offset = fields.get(3, [0])[0], fields.get(4, [0])[0]
    file, count = Path(f"{prefix}.data-{shard:05}-of-{shards:05}"), int(np.prod(shape))
    if not file.is_file():
        raise InputError(f"{file} is missing: a TensorFlow checkpoint is {prefix.name}.* together")
    values = np.fromfile(file, dtype, count, offset=offset)
    if len(values) < count:
        raise InputError(f"{file} is cut short: it ends inside {name}; copy or download it again")
    return values.reshape(shape)
