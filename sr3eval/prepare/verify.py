"""Checksums: of published archives before they are read, of written shards after."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from sr3eval.errors import UserError
from sr3eval.prepare import Tell
from sr3eval.shards import read_index


def verify_archives(archives: Mapping[Path, str], tell: Tell) -> None:
    """Compare archives {file: md5} with their published checksums; UserError for one that differs."""
    for count, (path, md5) in enumerate(archives.items(), start=1):
        tell("verify source", 0, len(archives))
        if _digest(path, "md5") != md5:
            raise UserError(f"{path}: its md5 is not the published {md5}; download it again")
        tell("verify source", count, len(archives))


def verify_shards(folder: Path, tell: Tell) -> None:
    """Compare every shard with its sha256 in the index.

    Raises UserError that counts those that differ and names the first.
    """
    entries = read_index(folder)["shardlist"]
    wrong = []
    for count, entry in enumerate(entries, start=1):
        path = folder / entry["url"]
        if not path.exists() or _digest(path, "sha256") != entry["sha256"]:
            wrong.append(path)
        tell("verify", count, len(entries))
    if wrong:
        raise UserError(
            f"{wrong[0]}: is damaged, {len(wrong)} of {len(entries)} shards are; delete them and run "
            "`sr3eval prepare` again"
        )


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
