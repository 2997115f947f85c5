"""Reads SMPL body files, .npz or pickle, without running anything they contain.

The official .pkl needs chumpy and scipy classes to unpickle, and chumpy does not install on a
current Python. Here the pickle may name a few numpy, scipy and chumpy classes only, and gets
stand-ins that hold data; whatever else it names is an error.
"""

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pchmr_engines.errors import InputError

Array = np.ndarray[Any, np.dtype[Any]]

REQUIRED = ("v_template", "shapedirs", "J_regressor", "kintree_table", "weights", "f")
OPTIONAL = ("posedirs", "cocoplus_regressor")
REGRESSOR_PREFIX = "regressor_"

# What a dictionary's pickle begins with: PROTO, or the MARK, GLOBAL or EMPTY_DICT of old protocols.
_PICKLE_STARTS = (b"\x80", b"(", b"c", b"}")
_DOWNLOAD_AGAIN = "download it again from where you got it"


def read_smpl_file(path: Path | str) -> dict[str, Array]:
    """The arrays of a body file by SMPL's key: REQUIRED, OPTIONAL where present, `regressor_*`.

    Sparse matrices and chumpy objects come out as dense arrays.

    Raises:
        InputError: no such file, not a body file, cut short, lacking a key, or a pickle that names
            anything but arrays.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file: give the path of an SMPL .npz or .pkl")
    with path.open("rb") as file:
        start = file.read(256).lstrip()
    if start.startswith(b"PK"):
        content = _read_npz(path)
    elif start[:1] in _PICKLE_STARTS:
        content = _read_pickle(path)
    else:
        raise InputError(f"{path} is {_what_it_is(start)}")
    missing = [key for key in REQUIRED if key not in content]
    if missing:
        raise InputError(
            f"{path} has no {', '.join(missing)}; expected an SMPL body file with the keys "
            f"{', '.join(REQUIRED)}, it has {', '.join(sorted(map(str, content))) or 'none'}"
        )
    wanted = [
        key
        for key in content
        if key in REQUIRED + OPTIONAL or str(key).startswith(REGRESSOR_PREFIX)
    ]
    return {key: _dense(content[key], f"{path}: {key}") for key in wanted}


def _what_it_is(start: bytes) -> str:
    if not start:
        return f"empty: {_DOWNLOAD_AGAIN}"
    if start.startswith(b"<"):
        return (
            "a web page saved under this name (the download asked for a login): log in on the "
            "body model's site and download it again"
        )
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer and not the file: run  git lfs pull"
    return f"neither a .npz nor a pickle (it starts with {start[:8]!r}): {_DOWNLOAD_AGAIN}"


def _read_npz(path: Path) -> Mapping[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if not any(name.endswith(".npy") for name in file.zip.namelist()):
                raise InputError(f"{path} is a zip archive without arrays: unpack it first")
            return {key: _member(file, key, path) for key in file.files if _is_wanted(key)}
    except InputError:
        raise
    except Exception as error:  # a damaged archive can fail in any way
        raise _damaged(path, error) from error


def _is_wanted(key: str) -> bool:
    return key in REQUIRED + OPTIONAL or key.startswith(REGRESSOR_PREFIX)


def _member(file: Mapping[str, Array], key: str, path: Path) -> Array:
    try:
        return file[key]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise InputError(
            f"{path}: {key} is a pickled object and not an array: save it as a plain array"
        ) from error


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{path} {error}") from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise _damaged(path, error) from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a {type(content).__name__}; expected a dictionary of arrays"
        )
    return content


def _damaged(path: Path, error: Exception) -> InputError:
    cause = f"{type(error).__name__}: {error}"
    return InputError(f"{path} is cut short or damaged ({cause}): {_DOWNLOAD_AGAIN}")


class _StandIn:
    """In place of an object the pickle names: keeps its state, does nothing."""

    state: Mapping[str, Any]
    name = "an object"

    def __new__(cls, *_: object) -> "_StandIn":
        return object.__new__(cls)

    def __init__(self, *_: object) -> None:
        self.state = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


class _Sparse(_StandIn):
    """A scipy compressed sparse matrix."""

    by_column = True


class _SparseRows(_Sparse):
    by_column = False


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles dictionaries of arrays and refuses every global it does not know."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "chumpy":
            return type("Chumpy", (_StandIn,), {"name": f"{module}.{name}"})
        if re.fullmatch(r"scipy\.sparse(\._?cs[cr])?", module) and name in _SPARSE:
            return _SPARSE[name]
        if (module, name) not in _KNOWN:
            raise InputError(
                f"names {module}.{name}, which a body file has no need of; nothing of it was run: "
                "use a file from the body model's own site, or save its arrays as .npz"
            )
        return _KNOWN[module, name]


def _reconstruct(_type: object, _shape: object, _typecode: object) -> Array:
    """numpy's maker of an empty array, whose content a BUILD of plain data sets afterwards."""
    return np.ndarray((0,), "b")


def _dtype(spec: Any, *_: object) -> np.dtype[Any]:
    # Objects too: numpy fills such an array from a list, whose content went through find_class.
    if not re.fullmatch(r"[<>|=]?[biufcSUO]\d+", str(spec)):
        raise InputError(f"holds an array of {spec!r}; expected numbers")
    return np.dtype(re.sub(r"O\d+", "O", str(spec)))


def _scalar(dtype: np.dtype[Any], data: Any) -> Any:
    return np.frombuffer(_encode(data, "latin1"), dtype)[0]


def _frombuffer(data: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> Array:
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: Any, _encoding: str = "latin1") -> bytes:
    return text if isinstance(text, bytes) else str(text).encode("latin1")


def _reconstructor(cls: Any, _base: object, _state: object) -> _StandIn:
    if not (isinstance(cls, type) and issubclass(cls, _StandIn)):
        raise InputError(f"builds a {cls!r}; expected arrays")
    return cls()


_SPARSE = {"csc_matrix": _Sparse, "csr_matrix": _SparseRows}
_KNOWN: Mapping[tuple[str, str], Callable[..., Any] | type] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
    ("numpy", "ndarray"): _StandIn,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    **{(copy, "_reconstructor"): _reconstructor for copy in ("copy_reg", "copyreg")},
    **{(builtin, "object"): object for builtin in ("__builtin__", "builtins")},
    **{(builtin, "set"): set for builtin in ("__builtin__", "builtins")},
    ("collections", "OrderedDict"): dict,
}


def _dense(value: Any, name: str) -> Array:
    """The array in a plain, sparse or chumpy value. Raises: InputError."""
    if isinstance(value, _Sparse):
        return _densified(value, name)
    if isinstance(value, _StandIn):
        if "x" not in value.state:
            raise InputError(
                f"{name} is a {value.name} without an array of its own: evaluate it where chumpy "
                "is installed and save the array"
            )
        return _dense(value.state["x"], name)
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} is {array.dtype}; expected an array of numbers")
    return array


def _densified(matrix: _Sparse, name: str) -> Array:
    state = matrix.state
    try:
        rows, columns = state.get("_shape", state.get("shape"))
        data, indices, indptr = (np.asarray(state[key]) for key in ("data", "indices", "indptr"))
        lines = np.repeat(np.arange(columns if matrix.by_column else rows), np.diff(indptr))
        dense = np.zeros((rows, columns), data.dtype)
        at = (indices, lines) if matrix.by_column else (lines, indices)
        np.add.at(dense, at, data)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"{name} is not a whole sparse matrix ({error}): {_DOWNLOAD_AGAIN}"
        ) from error
    return dense
