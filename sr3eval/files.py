"""Files that are written whole or not at all, and folders that belong to one run."""

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from sr3eval.errors import UserError

TEMPORARY = ".tmp-"  # what names of unfinished files begin with


def digest_of(paths: Mapping[str, Path | zipfile.Path]) -> str:
    """sha256 over the ids and the contents of files {id: path}: what a run keeps of its inputs, to know them again."""
    digest = hashlib.sha256()
    for name, path in sorted(paths.items()):
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        digest.update(f"{name}\x1f{content}\x1e".encode())
    return digest.hexdigest()


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file by renaming a finished temporary one, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def claim_folder(folder: Path, config_name: str, config: str) -> None:
    """Make `folder` the place of the run that `config` describes, or find that it already is.

    The text is written to `config_name` inside before anything else. Raises UserError for a folder that holds a run
    of another config or anything else.
    """
    existing = folder / config_name
    try:
        if existing.exists():
            if existing.read_text(encoding="utf-8") != config:
                raise UserError(f"{folder}: holds a run of another config or of other images; give another folder")
        elif folder.exists() and _is_other(folder):
            raise UserError(f"{folder}: {_is_other(folder)}, and not a run of this config; give another folder")
        else:
            atomic_write(existing, config.encode())
    except OSError as error:
        raise UserError(f"{folder}: cannot be used ({error.strerror})") from None


def _is_other(folder: Path) -> str:
    """What is wrong with a path that holds no run: "a file", "not empty", or nothing (files left by a kill aside)."""
    if not folder.is_dir():
        return "a file"
    return "not empty" if any(not entry.name.startswith(TEMPORARY) for entry in folder.iterdir()) else ""
