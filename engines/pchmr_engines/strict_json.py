"""JSON to frozen dataclasses and back, refusing whatever the dataclass does not say."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import BundleError

T = TypeVar("T")


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text. Raises: BundleError on bad syntax, a repeated key, NaN."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise BundleError(
                f"{where}: a key of {sorted(value)} stands twice: write the file anew"
            )
        return value

    def refuse(constant: str) -> None:
        raise BundleError(f"{where}: {constant} is no JSON number: write the file anew")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not JSON ({error}): write or copy the file anew") from error


def from_json(kind: type[T], value: Any, where: str) -> T:
    """A `kind` (a dataclass of plain types) from a parsed JSON value.

    Raises: BundleError naming the place, what came and what was expected.
    """
    return _read(kind, value, where)


def to_json(value: Any) -> str:
    """The JSON text of a dataclass, with a newline at its end."""
    return json.dumps(asdict(value), indent=2, allow_nan=False) + "\n"


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    if origin is Literal:
        return value if value in arguments else _refuse(value, f"one of {list(arguments)}", where)
    if origin in (Union, types.UnionType):
        return _read_union(arguments, value, where)
    if origin is tuple:
        return _read_tuple(arguments, value, where)
    if origin is Mapping:
        if not isinstance(value, dict):
            _refuse(value, "an object", where)
        return {key: _read(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        _refuse(value, kind.__name__, where)
    return float(value) if kind is float else value


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        _refuse(value, "an object", where)
    hints = get_type_hints(kind)
    expected = {field.name for field in fields(kind)}
    if missing := expected - value.keys():
        raise BundleError(f"{where}: {sorted(missing)} is missing: export the bundle again")
    if unknown := value.keys() - expected:
        raise BundleError(
            f"{where}: {sorted(unknown)} is unknown; expected {sorted(expected)}: "
            "export the bundle again, or update pchmr"
        )
    return kind(**{name: _read(hints[name], value[name], f"{where}.{name}") for name in expected})


def _read_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """The kinds of a union differ in their JSON type, so the first that fits is the one meant."""
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) == 1:
        return _read(kinds[0], value, where)
    if type(value) not in kinds:
        _refuse(value, " or ".join(kind.__name__ for kind in kinds), where)
    return value


def _read_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        _refuse(value, "a list", where)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        _refuse(value, f"a list of {len(kinds)}", where)
    pairs = enumerate(zip(kinds, value, strict=True))
    return tuple(_read(k, item, f"{where}[{i}]") for i, (k, item) in pairs)


def _refuse(value: Any, expected: str, where: str) -> None:
    shown = json.dumps(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    raise BundleError(f"{where} is {shown}; expected {expected}: export the bundle again")
