"""Encoded images in an LMDB database, which the package lmdb reads."""

import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from sr3eval.errors import UserError

DATABASE = "data.mdb"
SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")  # of PNG, JPEG and WebP files


@dataclass(frozen=True, slots=True)
class Value:
    """One encoded image: what callers use of a Path."""

    database: Path
    key: bytes

    @property
    def name(self) -> str:
        return self.key.decode()

    @property
    def suffix(self) -> str:
        return ""

    def open(self, _mode: Literal["rb"] = "rb") -> IO[bytes]:
        """The encoded image."""
        import lmdb

        try:
            with _opened(self.database).begin() as transaction:
                return io.BytesIO(transaction.get(self.key) or b"")
        except lmdb.Error as error:
            raise _damaged(self.database, error) from None

    def __str__(self) -> str:
        return f"{self.database}: {self.name}"


def values(database: Path) -> Iterator[Value]:
    """The values of a database that are encoded images; UserError where it cannot be read."""
    import lmdb

    try:
        with _opened(database).begin() as transaction:
            for key, value in transaction.cursor():
                if bytes(value[:4]).startswith(SIGNATURES):
                    yield Value(database, bytes(key))
    except lmdb.Error as error:
        raise _damaged(database, error) from None


@functools.lru_cache(maxsize=4)
def _opened(database: Path) -> Any:
    import lmdb

    try:
        found = lmdb.open(str(database), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise _damaged(database, error) from None
    # A map that is longer than its file ends the process when its end is read.
    needed = (found.info()["last_pgno"] + 1) * found.stat()["psize"]
    if (database / DATABASE).stat().st_size < needed:
        raise _damaged(database, f"{DATABASE} is truncated")
    return found


def _damaged(database: Path, reason: object) -> UserError:
    return UserError(f"{database}: not a readable LMDB database ({reason})")
