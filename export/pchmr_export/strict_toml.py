"""TOML to frozen dataclasses, refusing whatever the dataclass does not say."""

import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pchmr_engines.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises: InputError, one line, where there is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: give the path of a recipe (.toml)") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not TOML: {reason}") from error


def from_toml(kind: type[T], value: Any, where: str) -> T:
    """A `kind` (a dataclass of plain types) from a parsed TOML value.

    Raises: InputError naming the place, what came and what was expected.
    """
    return _read(kind, value, where)


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say of a name that is unknown: those it may have been meant for, else all."""
    known = sorted(known)
    close = get_close_matches(name.lower(), known, n=3)
    return f"did you mean {' or '.join(close)}" if close else f"known: {', '.join(known)}"


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    if origin is Literal:
        if value not in arguments:
            raise InputError(f"{where} is {value!r}; {nearest(str(value), arguments)}")
        return value
    if origin in (Union, types.UnionType):
        (kind,) = (part for part in arguments if part is not type(None))
        return _read(kind, value, where)
    if origin is tuple:
        return _read_tuple(arguments, value, where)
    if origin is Mapping:
        if not isinstance(value, dict):
            _refuse(value, "a table", where)
        return {key: _read(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        _refuse(value, _NAMES[kind], where)
    return float(value) if kind is float else value


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        _refuse(value, "a table", where)
    hints, own = get_type_hints(kind), {field.name: field for field in fields(kind)}
    for key in value:
        if key not in own:
            raise InputError(f"{where}.{key} is unknown; {nearest(key, own)}")
    for name, field in own.items():
        has_default = field.default is not MISSING or field.default_factory is not MISSING
        if name not in value and not has_default:
            raise InputError(f"{where} has no {name!r}, which it needs")
    return kind(**{key: _read(hints[key], item, f"{where}.{key}") for key, item in value.items()})


def _read_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        _refuse(value, "a list", where)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        _refuse(value, f"a list of {len(kinds)}", where)
    pairs = enumerate(zip(kinds, value, strict=True))
    return tuple(_read(kind, item, f"{where}[{i}]") for i, (kind, item) in pairs)


def _refuse(value: Any, expected: str, where: str) -> None:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    raise InputError(f"{where} is {shown}; expected {expected}")
