"""Strict TOML into frozen dataclasses: what is unknown or of the wrong type is an error that names the key."""

import dataclasses
import inspect
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from sr3eval.errors import UserError, nearest

T = TypeVar("T")

PACKAGE_PREFIX = "sr3eval:"
SPREAD = "spread"  # Annotated[Dataclass, SPREAD]: a parameter whose fields stand among the options themselves


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
    hints = typing.get_type_hints(cls)
    fields = _fields(cls)
    check_keys(data, fields, where)
    missing = [name for name, field in fields.items() if name not in data and _is_required(field)]
    if missing:
        raise UserError(f'missing key "{_join(where, missing[0])}"')
    values = {name: convert(hints[name], value, _join(where, name)) for name, value in data.items()}
    return cls(**values)


def check_keys(data: Mapping[str, Any], valid: typing.Iterable[str], where: str) -> None:
    """Raise UserError for the first key of `data` that is not valid, naming the nearest valid one."""
    valid = list(valid)
    for key in data:
        if key not in valid:
            raise UserError(f'unknown key "{_join(where, key)}": {nearest(key, valid)}')


def check_call(function: Callable[..., Any], options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check `options` against the keyword parameters of `function`, by name and annotated type."""
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(options)
    spread = _spread(function)
    check_keys(options, [*parameters, *(name for cls in spread.values() for name in _fields(cls))], where)
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in options and name not in spread:
            raise UserError(f'missing key "{_join(where, name)}"')
    hints = typing.get_type_hints(function)
    called = {n: convert(hints.get(n, Any), v, _join(where, n)) for n, v in options.items() if n in parameters}
    for name, cls in spread.items():
        called.setdefault(name, from_dict(cls, {n: v for n, v in options.items() if n in _fields(cls)}, where))
    return called


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword parameters of `function` that have a default other than None, those of spread ones too."""
    parameters = inspect.signature(function).parameters.values()
    own = {p.name: p.default for p in parameters}
    spread = {f.name: f.default for cls in _spread(function).values() for f in _fields(cls).values()}
    absent = (inspect.Parameter.empty, dataclasses.MISSING, None)
    return {name: value for name, value in (own | spread).items() if value not in absent}


def _spread(function: Callable[..., Any]) -> dict[str, type]:
    """The dataclasses of the parameters that are annotated as SPREAD."""
    hints = typing.get_type_hints(function, include_extras=True)
    return {name: hint.__origin__ for name, hint in hints.items() if SPREAD in getattr(hint, "__metadata__", ())}


def _fields(cls: type) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(cls) if field.init}


def convert(kind: Any, value: Any, where: str) -> Any:
    """Convert a TOML value to the type `kind` (lists to tuples, whole numbers to float) or raise UserError."""
    if kind is Any:
        return value
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, value, where)
    if origin is typing.Literal:
        if value in args:
            return value
        raise UserError(f'"{where}" is {value!r}: {nearest(str(value), map(str, args))}')
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return from_dict(typing.cast(type, kind), value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = origin or kind
    if isinstance(plain, type) and isinstance(value, plain) and not (isinstance(value, bool) and plain is not bool):
        return value
    raise UserError(f'"{where}" must be {_describe(kind)}, not {value!r}')


def _convert_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    options = [kind for kind in kinds if kind is not type(None)]
    for kind in options[:-1]:
        try:
            return convert(kind, value, where)
        except UserError:
            continue
    return convert(options[-1], value, where)


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a config dataclass into plain TOML values; keys whose value is None are left out."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items() if item is not None}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    return plain(dataclasses.asdict(config))


def to_toml(config: Any) -> str:
    """Write a config dataclass as TOML text."""
    return tomli_w.dumps(to_dict(config))


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _describe(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", dict: "a table"}
    if typing.get_origin(kind) is tuple:
        return "a list"
    if dataclasses.is_dataclass(kind):
        return "a table"
    return names.get(kind, str(kind))
