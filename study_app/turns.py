"""Whose turn it is to write to an SQLite file: first come, first served, over threads and processes.

SQLite itself lets a writer that comes too early sleep, up to 100 ms and past its turn.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where SQLite's own waiting does
    fcntl = None  # type: ignore[assignment]


class Turns:
    """Turns at a database file, by locks on two files beside it: of who is next, and of who writes.

    Who is killed gives up its turn. Answers do not depend on turns: SQLite has locks of its own.
    """

    def __init__(self, database: Path) -> None:
        self.database = database
        self._thread = threading.Lock()
        self._files: list[int] = []

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for a turn, and have it."""
        with self._thread:
            following, writing = self._files or self._open()
            _lock(following)
            _lock(writing)
            _unlock(following)
            try:
                yield
            finally:
                _unlock(writing)

    def _open(self) -> list[int]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._files = [os.open(f"{self.database}-{name}", flags, 0o600) for name in ("next", "turn")]
        return self._files


def _lock(file: int) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)


def _unlock(file: int) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_UN)
