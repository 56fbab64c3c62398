"""Files that are written whole or not at all, and folders that belong to one run."""

import errno
import functools
import hashlib
import logging
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal, Protocol

from sr3eval.errors import UserError
from sr3eval.shards import Member

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".tmp-"  # what names of unfinished files begin with; `atomic_write` adds host and process
HOST = f"{TEMPORARY}{platform.node()}-"
TAIL = 4096  # bytes
TIDY: set[Path] = set()  # folders that are held, in which no killed process has left anything
LOCK = f"{TEMPORARY}lock"  # what a file is named that is locked, and lies there no longer than that
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
PATIENCE = 10.0  # seconds until a folder that is held is refused: workers of a killed process may outlive it by some


class File(Protocol):
    """What an image is read from: a Path, a zipfile.Path, a shard's Member."""

    @property
    def name(self) -> str: ...

    @property
    def suffix(self) -> str: ...

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """Its bytes, seekable."""


def digest_of(paths: Mapping[str, File]) -> str:
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


def listing_digest(files: Iterable[tuple[str, File]]) -> str:
    """sha256 over the ids, sizes and last 4 KiB of (id, file): knows a million images again without reading all.

    The end of a compressed image depends on all of it: a PNG's checksum stands there, a JPEG's bit stream ends there.
    Of shards with an index, their checksums are taken in place of sizes and ends.
    """
    digest = hashlib.sha256()
    for name, path in files:
        if isinstance(path, Member) and path.checksum:
            digest.update(f"{name}\x1f{path.checksum}\x1f{path.path}\x1e".encode())
            continue
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - TAIL))
                end = hashlib.sha256(file.read()).hexdigest()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        digest.update(f"{name}\x1f{size}\x1f{end}\x1e".encode())
    return digest.hexdigest()


def atomic_write(path: Path, content: bytes, durable: bool = False) -> None:
    """Write a file by renaming a finished temporary one, so that no reader ever sees half of it.

    durable: wait until it is on the disk, for what a power cut must not lose. An OSError names the file.
    """
    with atomic_file(path, durable) as file:
        file.write(content)


@contextmanager
def atomic_file(path: Path, durable: bool = False) -> Iterator[IO[bytes]]:
    """A file to write to, which has its name once all of it is there; see `atomic_write`."""
    with _naming(path):
        yield from _temporary(path, durable)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An OSError of a temporary file, or of none, names this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None or TEMPORARY in str(error.filename):
            error.filename, error.filename2 = str(path), None
        raise


def _temporary(path: Path, durable: bool) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{HOST}{os.getpid()}-")
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
        if durable:
            _sync_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def link_or_write(path: Path, content: bytes, source: Path) -> None:
    """Make `path` another name of the file `source`, which holds `content`; where that cannot be, write a copy.

    Only for files that are replaced and never written to, of which one name then keeps what it had. Links cannot be on
    another file system, on one without hard links, for a file of too many names or, mostly, of another user.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{HOST}{os.getpid()}-{threading.get_ident()}")
    try:
        temporary.hardlink_to(source)
    except OSError:
        atomic_write(path, content)
        return
    try:
        temporary.replace(path)  # does nothing where both are names of one file already
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder last, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_disk(path: Path) -> int:
    """Bytes free where a file or folder is, or will be made."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


def room(out: Path) -> int:
    """Bytes that a command which resumes in `out` may take in all: what is free, and what is there already."""
    return free_disk(out) + sum(map(_size, below(out, lambda _: True)))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # of another process, just now
        return 0


def below(folder: Path, chosen: Callable[[str], bool]) -> Iterator[Path]:
    """The files below a folder whose names are `chosen`. Every folder is listed once, which rglob does twice."""
    for root, _, names in os.walk(folder):
        yield from (Path(root, name) for name in names if chosen(name))


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files below a folder that processes of this host left when they were killed."""
    for path in below(folder, lambda name: name.startswith(HOST)):
        process = path.name.removeprefix(HOST).partition("-")[0]
        if process.isdigit() and not _is_alive(int(process)):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes of this toolkit out of a folder while working in it; a kill lets go of it at once.

    The folder is made for that, and removed again if nothing was written. Where the system or the file system has no
    locks, nobody is kept out, which is said: files are written whole there, too, but two processes may do the same work
    twice.

    Raises:
        UserError: another process holds it, and still does after `PATIENCE` seconds; it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        yield
        return
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be used ({error.strerror})") from None
    try:
        with _locked(folder / LOCK, folder):
            yield
    finally:
        if made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


@contextmanager
def held_file(path: Path) -> Iterator[None]:
    """`held` for a file that is to be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    with _locked(path.with_name(f"{LOCK}-{path.name}"), path):
        yield


@contextmanager
def _locked(lock: Path, what: Path) -> Iterator[None]:
    """Hold a lock on a file that is made for it. UserError names `what` it stands for.

    NFS locks no folders, and no file that is open for reading alone.
    """
    if fcntl is None:
        yield
        return
    descriptor, is_new = _lock(lock, what, time.monotonic() + PATIENCE)
    if is_new:
        TIDY.add(what.resolve())
    try:
        yield
    finally:
        TIDY.discard(what.resolve())
        with suppress(OSError):
            lock.unlink(missing_ok=True)  # while it is locked: who waits for it will see that it has gone
        os.close(descriptor)


def _lock(lock: Path, what: Path, end: float) -> tuple[int, bool]:
    """The descriptor of the file, locked, and whether it is new: one that lies there was left by a killed process."""
    while True:
        try:
            is_new = not lock.exists()
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"{what}: cannot be used ({error.strerror})") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(lock, descriptor):
                return descriptor, is_new
        except BlockingIOError:
            if time.monotonic() >= end:
                os.close(descriptor)
                raise UserError(f"{what}: another process is working in it; wait until it ends, or stop it") from None
            time.sleep(0.1)
        except OSError as error:
            if error.errno in NO_LOCKS:
                _say_unlocked(what)
                return descriptor, False
            os.close(descriptor)
            raise UserError(f"{what}: cannot be used ({error.strerror})") from None
        os.close(descriptor)


def _is(lock: Path, descriptor: int) -> bool:
    """Whether a file still is the opened one."""
    try:
        return os.path.samestat(lock.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@functools.cache
def _say_unlocked(what: Path) -> None:
    logging.getLogger(__name__).warning("%s: its file system has no locks; let no other process work in it", what)


def claim_folder(folder: Path, config_name: str, config: str) -> None:
    """Make `folder` the place of the run that `config` describes, or find that it already is.

    The text is written to `config_name` inside before anything else. Raises UserError for a folder that holds a run
    of another config or anything else.
    """
    existing = folder / config_name
    try:
        if folder.resolve() not in TIDY:
            remove_unfinished(folder)
        if existing.exists():
            if existing.read_text(encoding="utf-8") != config:
                raise UserError(f"{folder}: holds a run of another config or other images; use another folder")
        elif folder.exists() and _is_other(folder):
            raise UserError(f"{folder}: {_is_other(folder)}, not a run of this config; use another folder")
        else:
            atomic_write(existing, config.encode())
    except OSError as error:
        raise UserError(f"{folder}: cannot be used ({error.strerror})") from None


def _is_other(folder: Path) -> str:
    """What is wrong with a path that holds no run: "a file", "not empty", or nothing (files left by a kill aside)."""
    if not folder.is_dir():
        return "a file"
    return "not empty" if any(not entry.name.startswith(TEMPORARY) for entry in folder.iterdir()) else ""
