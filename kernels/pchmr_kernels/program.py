"""Calls of the native library that are prepared once and then run as one.

Between two networks a frame needs some twenty short calls: what Python and ctypes take to make each
is longer than the calls themselves, above all when a network has just emptied the CPU's caches.
"""

from __future__ import annotations

import ctypes
import struct
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from . import body, geometry, person, smooth
from .native import address, check

Array = npt.NDArray[Any]


class Program:
    """Native calls on arrays that stay where they are. Not thread-safe.

    `add` calls, then call the program as often as the arrays hold something new.
    """

    def __init__(self) -> None:
        self._words: list[int] = []
        self._kept: list[Any] = []  # alive as long as their addresses
        self._code: Any = None

    def add(self, name: str, *arguments: Any) -> int:
        """One more call of `pchmr_<name>`; where its first argument stands, for `put`.

        arguments: numbers; C-contiguous arrays, ctypes structures, addresses or None for pointers.
            They are kept, but not what structures and addresses point to.

        Raises: ValueError for a function no program can call, another number of arguments, or an
        array that is not contiguous; TypeError for an argument of another kind.
        """
        loaded = _library()
        number = loaded.pchmr_program_function(name.encode())
        if number < 0:
            raise ValueError(f"no program can call {name!r}")
        kinds = getattr(loaded, f"pchmr_{name}").argtypes
        if len(kinds) != len(arguments):
            raise ValueError(f"{name} takes {len(kinds)} arguments; got {len(arguments)}")
        place = len(self._words) + 1
        given = zip(kinds, arguments, strict=True)
        self._words += [number, *(_word(kind, argument) for kind, argument in given)]
        self._kept.append(arguments)
        self._code = None
        return place

    def put(self, place: int, argument: int) -> None:
        """Put another integer, or the address of what the caller keeps alive."""
        if self._code is None:
            self._seal()
        self._code[place] = argument

    def __call__(self) -> None:
        """Raises: ValueError with the library's own message where a call fails."""
        if self._code is None:
            self._seal()
        if self._run():
            check(_library(), 1)

    def _seal(self) -> None:
        self._code = (ctypes.c_uint64 * len(self._words))(*self._words)
        self._run = partial(_library().pchmr_run_program, len(self._words), self._code)


def _word(kind: Any, argument: Any) -> int:
    """An argument as 64 bits, as its type in the C function has it."""
    if kind is ctypes.c_void_p:
        if argument is None or isinstance(argument, int):
            return argument or 0
        if isinstance(argument, np.ndarray):
            return address_of(argument)
        return ctypes.addressof(argument)
    value = kind(argument).value  # checks and converts, as a call of the function itself would
    if kind is ctypes.c_double:
        return int(struct.unpack("=Q", struct.pack("=d", value))[0])
    return int(value) & (2**64 - 1)


def address_of(array: Array) -> int:
    """Of its data. Raises: ValueError for an array that is not C-contiguous."""
    start = address(array)
    return start if isinstance(start, int) else ctypes.addressof(start)


@cache
def _library() -> ctypes.CDLL:
    """The library, all that programs call declared in it."""
    for module in (body, geometry, smooth):
        module.functions()
    loaded = person.functions()
    pointer, int64 = ctypes.c_void_p, ctypes.c_int64
    loaded.pchmr_program_function.argtypes = (ctypes.c_char_p,)
    loaded.pchmr_run_program.argtypes = (int64, pointer)
    for name, arguments in (
        ("clock_ns", (pointer,)),
        ("widen_f64", (int64, pointer, pointer)),
        ("narrow_f32", (int64, pointer, pointer)),
    ):
        function = getattr(loaded, f"pchmr_{name}")
        function.argtypes, function.restype = arguments, None
    return loaded
