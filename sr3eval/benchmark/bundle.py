"""A run in one zip file, for others: outputs, scores, versions and their checksums, with the same bytes every time."""

import hashlib
import json
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from sr3eval.benchmark import card
from sr3eval.benchmark.layout import HR, LR, REFERENCE, RunFolder
from sr3eval.benchmark.scores import read_config
from sr3eval.errors import UserError, number
from sr3eval.files import TEMPORARY, atomic_file, below, free_disk, link_or_write

FORMAT = "sr3eval-bundle-1"
MANIFEST = "manifest.json"
FILES = (
    "config.toml",
    "environment.json",
    "fingerprints.json",
    "per_image.csv",
    "set_scores.csv",
    "seed_scores.csv",
    "draw_scores.csv",
    "results.csv",
    "results.json",
)
EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of every member: ZIP knows none before
MOST_GROWTH = 100  # by which a bundle may unpack to more than its size: tables shrink to a tenth at most


def write(run: Path, out: Path, inputs: bool = False) -> str:
    """Write the bundle `out` of a finished run; its sha256.

    inputs: with the HR and LR pictures, without which others check scores against pictures of their own.
    Members are stored as they are, so that the bytes depend on no version of zlib. Raises UserError for a run that is
    not finished, or whose results.json is not of its tables and pictures' sums, and where `out` exists.
    """
    if out.suffix.lower() != ".zip" or out.exists():
        raise UserError(f"{out}: " + ("already exists; give another name" if out.exists() else "name it *.zip"))
    if card.of_run(run) != card.read(run / "results.json").runs[0]:
        raise UserError(f"{run}: results.json is not of its tables; repeat `benchmark.py run`")
    with atomic_file(out) as file:
        _write(run, file, inputs)
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _write(run: Path, file: IO[bytes], inputs: bool) -> None:
    sums = {}
    with zipfile.ZipFile(file, "w") as archive:
        for name, path in sorted(_members(run, inputs).items()):
            content = path.read_bytes()
            sums[name] = hashlib.sha256(content).hexdigest()
            _add(archive, name, content)
        _add(archive, MANIFEST, json.dumps({"format": FORMAT, "sha256": sums}, indent=1).encode())


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, EPOCH)
    info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
    archive.writestr(info, content)


def _members(run: Path, inputs: bool) -> dict[str, Path]:
    """{name in the bundle: file}; copies of HR count as inputs."""
    given = {} if inputs else {HR, LR, *_references(run)}
    folders = [folder for folder in sorted((run / "images").glob("*")) if folder.is_dir() and folder.name not in given]
    pictures = [path for folder in folders for path in below(folder, lambda name: name.endswith((".png", ".json")))]
    paths = [*(run / name for name in FILES if (run / name).exists()), *pictures]
    return {path.relative_to(run).as_posix(): path for path in paths}


def _references(run: Path) -> set[str]:
    """The folders of a run that hold HR under a method's name."""
    return {slug for method in read_config(run).method if method.kind == REFERENCE for slug in method.slugs}


def is_bundle(path: Path) -> bool:
    """Whether a path that stands for a run is a bundle of one."""
    return path.is_file() and path.suffix.lower() == ".zip"


@contextmanager
def opened(path: Path, pictures: bool = False) -> Iterator[Path]:
    """The folder of a run: `path` itself, or what a bundle unpacks to, under the same name in a temporary folder.

    pictures: those too. Raises UserError for a file that is no bundle, that is damaged or altered, and for one that
    would write elsewhere or unpack to more than a bundle can.
    """
    if not is_bundle(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix=TEMPORARY) as temporary:
        *_, parent, _name = ("", *path.resolve().parts)
        folder = Path(temporary, parent.strip("/") or "bundle", path.stem)
        try:
            with zipfile.ZipFile(path) as archive:
                _unpack(archive, path, folder, pictures)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise UserError(f"{path}: not a readable zip file ({error})") from None
        yield folder


def _unpack(archive: zipfile.ZipFile, path: Path, folder: Path, pictures: bool) -> None:
    members = {info.filename: info for info in archive.infolist()}
    if len(members) < len(archive.infolist()) or MANIFEST not in members:
        raise UserError(f"{path}: not a bundle of `benchmark.py bundle`: it has no {MANIFEST}, or a name twice")
    total = sum(info.file_size for info in members.values())
    if total > MOST_GROWTH * path.stat().st_size or total > free_disk(Path(tempfile.gettempdir())):
        raise UserError(f"{path}: would unpack to {number(total, 'byte')}; that is refused")
    sums = _manifest(archive, path)
    if bad := next((name for name, info in members.items() if name != MANIFEST and not _is_safe(info)), None):
        raise UserError(f"{path}: {bad!r} has no place in a bundle; nothing was unpacked")
    if sums.keys() != members.keys() - {MANIFEST}:
        raise UserError(f"{path}: has other files than its {MANIFEST} names")
    for name, sha256 in sums.items():
        if pictures or not name.endswith(".png"):
            with archive.open(name) as source:
                _copy(source, folder / name, sha256, f"{path}: {name}")


def _manifest(archive: zipfile.ZipFile, path: Path) -> dict[str, str]:
    """{name: sha256}."""
    try:
        found: Any = json.loads(archive.read(MANIFEST))
        if found["format"] != FORMAT:
            raise UserError(f"{path}: of the format {found['format']!r}; this release reads {FORMAT}")
        return {str(name): str(sha256) for name, sha256 in found["sha256"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path}: its {MANIFEST} is not that of a bundle") from None


def _is_safe(info: zipfile.ZipInfo) -> bool:
    """Whether a member is a plain file of a run, below the folder that it is unpacked into."""
    name, kind = PurePosixPath(info.filename), stat.S_IFMT(info.external_attr >> 16)
    inside = info.filename in FILES or (name.parts[:1] == ("images",) and name.suffix in (".png", ".json"))
    odd = {"..", "."} & set(info.filename.split("/")) or set(info.filename) & set("\\:\0")
    return inside and not odd and kind in (0, stat.S_IFREG)


def _copy(source: IO[bytes], target: Path, sha256: str, name: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w+b") as file:
        shutil.copyfileobj(source, file)
        file.seek(0)
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise UserError(f"{name}: altered: not what {MANIFEST} has the checksum of")


def add_inputs(folder: Path, run: Path) -> None:
    """Give an unpacked bundle the HR and LR pictures of a run of the same images, where it has none.

    Raises UserError where the run's are others.
    """
    theirs, ours = (card.of_run(each).data for each in (folder, run))
    other = next((name for name, data in theirs.items() if name not in ours or ours[name].pixels != data.pixels), None)
    if other is not None:
        raise UserError(f"{run}: has other images than the bundle" + (f", or not as the set {other}" if other else ""))
    mine, bundled = RunFolder(run), RunFolder(folder)
    copies = {HR: (HR, *_references(folder)), LR: (LR,)}
    for given, names in copies.items():
        for image_id in mine.ids(given):
            source = mine.image(given, image_id)
            for name in names:
                link_or_write(bundled.image(name, image_id), source.read_bytes(), source)
