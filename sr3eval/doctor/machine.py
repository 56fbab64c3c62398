"""What does not depend on a config: packages, devices, weights, the study's database, room on the disk."""

import importlib.metadata
import importlib.util
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

from sr3eval.doctor.findings import Finding, missing, note
from sr3eval.errors import number
from sr3eval.files import free_disk
from sr3eval.quantities import quantity

DATABASE = "STUDY_DATABASE_URL"
SHOWN = ("numpy", "pillow", "torchvision", "accelerate")


def versions() -> Iterator[Finding]:
    """Of Python, this toolkit, PyTorch and what images and numbers depend on."""
    yield Finding("Python", f"{platform.python_version()}, {platform.platform(terse=True)}")
    others = [f"{name} {version}" for name in SHOWN if (version := _version(name))]
    yield Finding("sr3eval", ", ".join([_version("sr3eval") or "not installed: pip install -e .", *others]))
    if importlib.util.find_spec("torch") is None:
        yield missing("PyTorch", "torch is not installed: pip install 'sr3eval[eval]'")
    else:
        import torch

        cuda = torch.version.cuda
        yield Finding("PyTorch", f"{torch.__version__}, built {f'for CUDA {cuda}' if cuda else 'without CUDA'}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def extras() -> list[Finding]:
    """Which extras of this toolkit are installed as a whole."""
    return [_extra(name, packages) for name, packages in _requirements().items() if name not in ("dev", "test", "all")]


def _extra(name: str, packages: list[str]) -> Finding:
    lacking = [package for package in packages if _version(package) is None]
    if lacking:
        return note(f"extra {name}", f"without {', '.join(lacking)}: pip install 'sr3eval[{name}]'")
    return Finding(f"extra {name}", number(len(packages), "package"))


def _requirements() -> dict[str, list[str]]:
    """{extra: names of the packages that it asks for itself}."""
    found: dict[str, list[str]] = {}
    for text in importlib.metadata.requires("sr3eval") or []:
        match = re.fullmatch(r"([\w.-]+)(\[.*\])?[^;]*; extra == ['\"]([\w-]+)['\"]", text)
        if match and match[1] != "sr3eval":
            found.setdefault(match[3], []).append(match[1])
    return found


def devices() -> list[Finding]:
    """Of this machine, with their memory, and whether they compute in bfloat16."""
    if importlib.util.find_spec("torch") is None:
        return []
    import psutil
    import torch

    from sr3eval.device import has_bfloat16

    def half(kind: str) -> str:
        return "bfloat16" if has_bfloat16(torch.device(kind)) else "no bfloat16: float32 is taken"

    memory = psutil.virtual_memory()
    free = f"{quantity(memory.available, 'B')} of {quantity(memory.total, 'B')} of memory free"
    found = [Finding("CPU", f"{number(os.cpu_count() or 1, 'core')}, {free}, {half('cpu')}")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            Finding(f"GPU {index}", f"{properties.name}, {quantity(properties.total_memory, 'B')}, {half('cuda')}")
        )
    return found if len(found) > 1 else [*found, note("GPU", "none that PyTorch sees: everything runs on the CPU")]


def weights() -> Finding:
    """How many of the known releases are here."""
    if importlib.util.find_spec("torch") is None:
        return note("weights", "not looked for without PyTorch")
    from sr3eval.weights import FOLDER, declared

    own = os.environ.get(FOLDER)
    if own and not Path(own).is_dir():
        return note("weights", f"{FOLDER}={own}: no such folder; make it, or unset {FOLDER}")
    releases = declared().releases
    here = sum(release.found() is not None for release in releases)
    where = "`python benchmark.py weights` lists them"
    return Finding("weights", f"{here} of {number(len(releases), 'known file')} are here; {where}")


def database(network: bool = False) -> Finding:
    """The human study's. A file is opened to be read; a server is asked where `network` says so."""
    if importlib.util.find_spec("sqlalchemy") is None:
        return note("database", "of the study: pip install 'sr3eval[study]'")
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    text = os.environ.get(DATABASE)
    if not text:
        return note("database", f"{DATABASE} is not set: the study keeps its answers in instance/study.sqlite")
    write = f"{DATABASE}: write sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
    try:
        url = make_url(text)
        url.get_dialect().import_dbapi()
    except ModuleNotFoundError:
        return missing("database", f"{DATABASE}: its driver is not installed: pip install 'sr3eval[postgresql]'")
    except (ArgumentError, NoSuchModuleError, ValueError):  # the URL is not repeated: it may hold a password
        return missing("database", write)
    if url.get_backend_name() == "sqlite":
        return _sqlite(Path(url.database)) if url.database else missing("database", write)
    if not network:
        return note("database", f"{url.render_as_string()}: not asked; --network connects to it")
    return _server(url.render_as_string(hide_password=False), url.render_as_string())


def _sqlite(path: Path) -> Finding:
    import sqlite3

    if not path.exists():
        return folder("database", path, f"{path}: does not exist yet; the study's first command makes it")
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        count = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
        connection.close()
    except sqlite3.Error as error:
        return missing("database", f"{path}: {error}; set {DATABASE} to another file, or put a backup there")
    return Finding("database", f"{path}, {number(count, 'table')}")


def _server(url: str, shown: str) -> Finding:
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with create_engine(url).connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        why = str(getattr(error, "orig", error)).splitlines()[0]
        return missing("database", f"{shown}: does not answer ({why}); start it, or mend {DATABASE}")
    return Finding("database", f"{shown}: answers")


def folder(topic: str, path: Path, text: str = "") -> Finding:
    """Whether a folder, or that of a new file, can be written to, and what is free there."""
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    if existing == path and not path.is_dir():
        return missing(topic, f"{path}: is a file; give another folder")
    if not os.access(existing, os.W_OK | os.X_OK) or os.statvfs(existing).f_flag & os.ST_RDONLY:
        return missing(topic, f"{existing}: cannot be written to; give another folder, or mend its permissions")
    return Finding(topic, text or f"{path}: {quantity(free_disk(path), 'B')} free")
