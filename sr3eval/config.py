"""Strict TOML into frozen dataclasses: what is unknown or of the wrong type is an error that names the key."""

import dataclasses
import functools
import inspect
import re
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError, to_json

from sr3eval.errors import UserError, nearest

T = TypeVar("T")

PACKAGE_PREFIX = "sr3eval:"
SPREAD = "spread"  # Annotated[Dataclass, SPREAD]: a parameter whose fields stand among the options themselves
EXPECTED = {  # by pydantic's type of error
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "dataclass_type": "a table",
    "needs_python_object": "a Python object, which TOML cannot hold",
}


def resolve_path(path: str) -> Path:
    """Turn a path of a config into a real one; `sr3eval:assets/x` lies inside the installed package."""
    if path.startswith(PACKAGE_PREFIX):
        return Path(__file__).parent / path.removeprefix(PACKAGE_PREFIX)
    return Path(path).expanduser()


def read_toml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a TOML file and apply `a.b=value` overrides, whose values are TOML (a bare word is a string).

    `data.1.limit=5` is of the second table of a list.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: not a readable TOML file ({error})") from None
    for override in overrides:
        _apply_override(data, override)
    return data


def _apply_override(data: Any, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f'--set {override}: write it as "a.b=value"')
    *parents, last = key.strip().split(".")
    for parent in parents:
        found: Any = data.setdefault(parent, {}) if isinstance(data, dict) else _member(data, parent)
        if isinstance(found, list) and len(found) == 1:
            found = found[0]
        if not isinstance(found, dict | list):
            raise UserError(f'--set {override}: "{parent}" is not a table')
        data = found
    if not isinstance(data, dict):
        raise UserError(f'--set {override}: "{parents[-1]}" is a list; name one, e.g. "{parents[-1]}.0.{last}"')
    try:
        data[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        data[last] = text.strip()


def _member(tables: list[Any], index: str) -> Any:
    return tables[int(index)] if index.isdecimal() and int(index) < len(tables) else None


Kind = Literal["training", "search", "cascade", "run"]
KEYS: dict[Kind, str] = {"cascade": "generator", "training": "optimiser", "search": "checkpoint", "run": "method"}


def kind_of(data: Mapping[str, Any]) -> Kind:
    """What a config is of: of `sr3eval train`, `search-schedule`, `cascade`, or `benchmark.py run`.

    Raises UserError where no key tells.
    """
    found = next((kind for kind, key in KEYS.items() if key in data), None)
    if found is None:
        keys = ", ".join(f'"{key}" ({kind})' for kind, key in KEYS.items())
        raise UserError(f"not a config of this toolkit: none of the keys {keys} is in it")
    return found


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass `cls` (nested ones too) from a mapping.

    `where` names the table in error messages. Raises UserError for an unknown or missing key or a wrong type.
    """
    return _convert(cls, data, where)


def _convert(kind: Any, value: Any, where: str) -> Any:
    if kind in (Any, inspect.Parameter.empty):
        return value
    data = {where: value}
    try:  # as JSON, where even strict types take lists for tuples and tables for dataclasses
        return _adapter(kind).validate_json(to_json(data, inf_nan_mode="constants"))[where]
    except ValidationError as error:
        raise UserError(_explain(error.errors(), {where: kind}, data)) from None
    except PydanticSerializationError as error:
        raise UserError(f'"{where or "config"}" holds what TOML cannot: {error}') from None


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[dict[str, Any]]:
    """Validates a table of `kind`, as a dataclass by itself would take no ConfigDict."""
    return TypeAdapter(dict[str, kind], config=ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True))


def _explain(errors: Sequence[ErrorDetails], hints: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The outermost unknown key, which may be a missing one misspelt; or a missing key; or the innermost wrong type."""
    unknown = [error for error in errors if error["type"] == "unexpected_keyword_argument"]
    others = sorted(errors, key=lambda error: (error["type"] != "missing", -len(error["loc"])))
    error = min(unknown or others[:1], key=lambda error: len(error["loc"]))
    path, keys = _locate(error, hints, data)
    *_, key = "", *map(str, error["loc"])
    match error["type"]:
        case "unexpected_keyword_argument":
            return f'unknown key "{path}": {nearest(key, keys)}'
        case "missing":
            return f'missing key "{path}{"." if path else ""}{key}"'
        case "value_error" | "json_invalid":
            return f'"{path}": {error["msg"]}'
    given, members = error["input"], [other for other in errors if _locate(other, hints, data)[0] == path]  # of a union
    if members[-1]["type"] == "literal_error":
        valid = re.split(", | or ", members[-1]["ctx"]["expected"].replace("'", ""))
        return f'"{path}" is {given!r}: {nearest(str(given), valid)}'
    expected = (EXPECTED.get(member["type"], member["msg"].removeprefix("Input should be ")) for member in members)
    return f'"{path}" must be {" or ".join(expected)}, not {given!r}'


def _locate(error: ErrorDetails, hints: Mapping[Any, Any], data: Any) -> tuple[str, Iterable[str]]:
    """The path to an error in `data`, and the keys of the dataclass that it lies in."""
    path = ""
    for key in error["loc"]:
        hint = hints.get(key)
        for table in filter(dataclasses.is_dataclass, (hint, *typing.get_args(hint))):
            hints = typing.get_type_hints(table)
        with suppress(LookupError, TypeError):  # pydantic adds the members of unions
            data = data[key]
            path += f"[{key}]" if isinstance(key, int) else f".{key}"
    return path.lstrip("."), hints


def check_call(
    function: Callable[..., Any], options: Mapping[str, Any], where: str, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Check `options` against the keyword parameters of `function`, by name and annotated type.

    given: parameters that no option may set; they are in what is returned, too.
    """
    given = given or {}
    parameters, called = {name: p for name, p in _parameters(function).items() if name not in given}, dict(given)
    others = next((p for p in parameters.values() if p.kind is p.VAR_KEYWORD), None)
    for key, value in options.items():
        parameter = parameters.get(key, others)
        if parameter is None:
            raise UserError(f'unknown key "{where}.{key}": {nearest(key, parameters)}')
        called[key] = _convert(parameter.annotation, value, f"{where}.{key}")
    for name, parameter in parameters.items():
        if name not in called and parameter.default is parameter.empty and parameter is not others:
            raise UserError(f'missing key "{where}.{name}"')
    for name, cls in _spread(function).items():
        called[name] = cls(**{key: called.pop(key) for key in _parameters(cls) if key in called})
    return called


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword parameters of `function` that have a default other than None, those of spread ones too."""
    return {name: p.default for name, p in _parameters(function).items() if p.default not in (p.empty, None)}


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of `function`, with the fields of SPREAD dataclasses in their place."""
    found, spread = inspect.signature(function, eval_str=True).parameters, _spread(function)
    own = {name: p for name, p in found.items() if p.kind is not p.VAR_POSITIONAL}
    fields = [_parameters(cls) for cls in spread.values()]
    return {name: p for table in (own, *fields) for name, p in table.items() if name not in spread}


def _spread(function: Callable[..., Any]) -> dict[str, type]:
    """The dataclasses of the parameters that are annotated as SPREAD."""
    hints = {p.name: p.annotation for p in inspect.signature(function, eval_str=True).parameters.values()}
    return {name: hint.__origin__ for name, hint in hints.items() if SPREAD in getattr(hint, "__metadata__", ())}


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a config dataclass into plain TOML values; keys whose value is None are left out."""
    return dataclasses.asdict(config, dict_factory=lambda items: {key: item for key, item in items if item is not None})


def to_toml(config: Any) -> str:
    """Write a config dataclass as TOML text."""
    return tomli_w.dumps(to_dict(config))
