"""What a deployment says of itself in the environment: secrets, also in files, and the path that it lies below."""

import os
import re
import secrets
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from sr3eval.errors import UserError
from sr3eval.files import TEMPORARY

PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
ROOTS = ("s", "admin", "static", "healthz")  # what lies at the application's own top


def read_files(config: MutableMapping[str, Any], environment: Mapping[str, str]) -> None:
    """Set KEY to what the file says that STUDY_KEY_FILE names, as Docker hands over secrets; or raise UserError."""
    for variable in environment:
        name = variable.removesuffix("_FILE")
        if name == variable or not name.startswith("STUDY_"):
            continue
        if name in environment:
            raise UserError(f"{name} and {variable} are both set: keep one")
        config[name.removeprefix("STUDY_")] = _content(variable, Path(environment[variable]))


def _content(variable: str, path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UserError(f"{variable}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{variable}: {path} is not text") from None
    if not text:
        raise UserError(f"{variable}: {path} is empty")
    return text


def check_plain(config: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Raise UserError for a switch or a number that an environment variable spells in another way than JSON does."""
    for key in keys:
        if isinstance(config[key], str):
            raise UserError(f"STUDY_{key}={config[key]}: write true, false, null or a number")


def check_fallbacks(keys: Any) -> None:
    """Raise UserError where the older secret keys are not a list of them."""
    if not isinstance(keys, list | tuple | None):
        raise UserError('STUDY_SECRET_KEY_FALLBACKS: write a list, ["the key before"]')


def check_prefix(prefix: str) -> None:
    """Raise UserError where the application cannot lie below this path."""
    if prefix and not (PREFIX.fullmatch(prefix) and prefix.split("/")[1] not in ROOTS):
        raise UserError(
            f"STUDY_PREFIX={prefix}: write a path such as /studies (not below /s, /admin, /static or /healthz)"
        )


def with_password(url: str, password: str | None) -> str | URL:
    """The database's URL with a password that was given apart."""
    try:
        return make_url(url).set(password=str(password)) if password else url
    except (ArgumentError, ValueError):
        return url  # of which Database says what is wrong


def secret_key(config: Mapping[str, Any], folder: Path) -> str:
    """The given key. Without one, one that is made and kept in `folder`, for Flask's own command line or in debug mode.

    A server must be given one: what it would make itself is lost with its container, and another on a second machine.
    """
    if config["SECRET_KEY"]:
        return str(config["SECRET_KEY"])
    if config["DEBUG"] or os.environ.get("FLASK_RUN_FROM_CLI") == "true":
        return kept_secret(folder / "secret_key")
    raise UserError("STUDY_SECRET_KEY is missing: set it, or STUDY_SECRET_KEY_FILE; `openssl rand -hex 32` makes one")


def kept_secret(path: Path) -> str:
    """The secret in a file that only its owner reads, made by whichever process comes first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    temporary.touch(mode=0o600)
    temporary.write_text(secrets.token_hex(32))
    try:
        os.link(temporary, path)  # whole or not at all, and never over another's
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return path.read_text()
