"""Files that are written whole or not at all, and folders that belong to one run."""

import os
import tempfile
from pathlib import Path

from sr3eval.errors import UserError


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file by renaming a finished temporary one, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
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
                raise UserError(f"{folder}: holds a run of another config; give another folder")
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder}: not empty, and not a run of this config; give another folder")
        else:
            atomic_write(existing, config.encode())
    except OSError as error:
        raise UserError(f"{folder}: cannot be used ({error.strerror})") from None
