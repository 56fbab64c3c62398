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
from typing import Any, TypeVar

import tomli_w
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError, to_json

from sr3eval.errors import UserError, nearest

T = TypeVar("T")

PACKAGE_PREFIX = "sr3eval:"
SPREAD = "spread"  # Annotated[Dataclass, SPREAD]: a parameter whose fields stand among the options themselves
STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)
EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "dataclass_type": "a table",
}


def resolve_path(path: str) -> Path:
    """Turn a path of a config into a real one; `sr3eval:assets/x` lies inside the installed package."""
    if path.startswith(PACKAGE_PREFIX):
        return Path(__file__).parent / path.removeprefix(PACKAGE_PREFIX)
    return Path(path).expanduser()


def read_toml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a TOML file and apply `a.b=value` overrides, whose values are TOML (a bare word is a string)."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: not a readable TOML file ({error})") from None
    for override in overrides:
        _apply_override(data, override)
    return data


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f'--set {override}: write it as "a.b=value"')
    *parents, last = key.strip().split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise UserError(f'--set {override}: "{parent}" is not a table')
    try:
        data[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        data[last] = text.strip()


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass `cls` (nested ones too) from a mapping.

    `where` names the table in error messages. Raises UserError for an unknown or missing key or a wrong type.
    """
    return convert(cls, data, where)


def convert(kind: Any, value: Any, where: str) -> Any:
    """Convert a TOML value to the type `kind` (lists to tuples, whole numbers to float) or raise UserError."""
    if kind in (Any, inspect.Parameter.empty):
        return value
    try:  # strict as for JSON: it has neither tuples nor dataclasses, so that lists and tables stand for them
        return _adapter(kind).validate_json(to_json([value], inf_nan_mode="constants"))[0]
    except PydanticSerializationError as error:
        raise UserError(f'"{where or "config"}" holds what TOML cannot: {error}') from None
    except ValidationError as error:
        raise UserError(_explain(error.errors(), kind, value, where)) from None


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[list[Any]]:
    """Validates a list of one `kind`: a dataclass by itself would not take STRICT."""
    return TypeAdapter(list[kind], config=STRICT)


def _explain(errors: Sequence[ErrorDetails], kind: Any, value: Any, where: str) -> str:
    """The outermost error; an unknown key goes before a missing one, which it may be a misspelling of."""
    error = min(errors, key=lambda error: (error["type"] != "unexpected_keyword_argument", len(error["loc"])))
    *parents, key = error["loc"]
    path, given = _path(where, error["loc"], value), error["input"]
    same = [other for other in errors if _path(where, other["loc"], value) == path]  # one a member of a union
    if error["type"] == "unexpected_keyword_argument":
        return f'unknown key "{path}": {nearest(str(key), _hints(kind, parents))}'
    if error["type"] == "missing":
        return f'missing key "{_join(path, key)}"'
    if same[-1]["type"] == "literal_error":
        valid = re.split(", | or ", same[-1]["ctx"]["expected"].replace("'", ""))
        return f'"{path}" is {given!r}: {nearest(str(given), valid)}'
    if error["msg"].startswith("Input should be "):
        expected = [EXPECTED.get(e["type"], e["msg"].removeprefix("Input should be ")) for e in same]
        return f'"{path}" must be {" or ".join(expected)}, not {given!r}'
    return f'"{path}": {error["msg"]}'


def _path(where: str, location: Sequence[int | str], value: Any) -> str:
    """The keys of `location` that lead into `value`; pydantic adds the members of unions."""
    for key in location[1:]:
        with suppress(LookupError, TypeError):
            value = value[key]
            where = _join(where, key)
    return where


def _hints(kind: Any, location: Sequence[int | str]) -> dict[str, Any]:
    """The fields, with their types, of the dataclass at `location`."""
    hints: dict[Any, Any] = {0: kind}
    for key in location:
        hint = hints.get(key)
        for table in filter(dataclasses.is_dataclass, (hint, *typing.get_args(hint))):
            hints = typing.get_type_hints(table)
    return hints


def _join(where: str, key: int | str) -> str:
    if isinstance(key, int):
        return f"{where}[{key}]"
    return f"{where}.{key}" if where else key


def check_keys(data: Mapping[str, Any], valid: Iterable[str], where: str) -> None:
    """Raise UserError for the first key of `data` that is not valid, naming the nearest valid one."""
    valid = list(valid)
    for key in data:
        if key not in valid:
            raise UserError(f'unknown key "{_join(where, key)}": {nearest(key, valid)}')


def check_call(function: Callable[..., Any], options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check `options` against the keyword parameters of `function`, by name and annotated type."""
    parameters, spread = _parameters(function), _spread(function)
    if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values()):
        check_keys(options, parameters, where)
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in options:
            raise UserError(f'missing key "{_join(where, name)}"')
    hints = {name: parameter.annotation for name, parameter in parameters.items()}
    called = {name: convert(hints.get(name, Any), value, _join(where, name)) for name, value in options.items()}
    for name, cls in spread.items():
        called[name] = cls(**{key: called.pop(key) for key in _parameters(cls) if key in called})
    return called


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword parameters of `function` that have a default other than None, those of spread ones too."""
    return {name: p.default for name, p in _parameters(function).items() if p.default not in (p.empty, None)}


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword parameters of `function`, with the fields of a SPREAD dataclass in its place."""
    spread = _spread(function)
    own = inspect.signature(function, eval_str=True).parameters
    named = {name: p for name, p in own.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    fields = {name: p for cls in spread.values() for name, p in _parameters(cls).items()}
    return {name: p for name, p in named.items() if name not in spread} | fields


def _spread(function: Callable[..., Any]) -> dict[str, type]:
    """The dataclasses of the parameters that are annotated as SPREAD."""
    hints = {name: p.annotation for name, p in inspect.signature(function, eval_str=True).parameters.items()}
    return {name: hint.__origin__ for name, hint in hints.items() if SPREAD in getattr(hint, "__metadata__", ())}


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a config dataclass into plain TOML values; keys whose value is None are left out."""
    return dataclasses.asdict(config, dict_factory=lambda items: {key: item for key, item in items if item is not None})


def to_toml(config: Any) -> str:
    """Write a config dataclass as TOML text."""
    return tomli_w.dumps(to_dict(config))
