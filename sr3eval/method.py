"""What a super-resolution method is, and those that need no network: bicubic, outputs in a folder, HR itself."""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

import sr3eval
from sr3eval import arrays
from sr3eval.arrays import OVERSHOOT
from sr3eval.data import by_id, pictures, zipped_pictures
from sr3eval.device import threads
from sr3eval.errors import UserError, number
from sr3eval.files import digest_of
from sr3eval.images import SUFFIXES, bicubic_up, header_size, load, resize_square
from sr3eval.tasks import Task

Picture = Path | zipfile.Path
# What a method says of each of its images, e.g. {"converged": False}; empty for nothing. JSON holds it.
Notes = list[dict[str, Any]]
# Upscaling in steps: yields the share of the work that is done, in (0, 1], and returns (images, notes).
Work = Generator[float, None, tuple[Tensor, Notes]]
T = TypeVar("T")


@runtime_checkable
class Method(Protocol):
    """Turns low-resolution images into high-resolution ones."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Hash of the weights and of every setting that changes outputs. With the code and the device, it names the
        cache entry. A method from somebody's own file may go without: that file, what it imports and the files that its
        options name are hashed anyway.
        """

    @property
    def scale(self) -> int | None:
        """Factor by which sides grow; None: takes the task's own."""

    def upscale(self, lr: Tensor, seeds: Sequence[int]) -> Tensor:
        """[N, 3, h, w] to [N, 3, H, W], both float32 in [0, 1]; image i draws its noise from seeds[i] alone."""

    # Optional: lr_size, the side of the only inputs that it takes; upscale_noted(lr, seeds) -> (Tensor, Notes), where
    # there is something to say of an image; upscale_steps(lr, seeds) -> Work, where a batch takes long; one_by_one,
    # True where it makes the images of a batch one after the other, so that none need wait for the others;
    # device, where its network runs, by default the first GPU if there is one.


def work(method: Method, lr: Tensor, seeds: Sequence[int]) -> Work:
    """Upscale by the most telling of the method's ways."""
    if hasattr(method, "upscale_steps"):
        return (yield from method.upscale_steps(lr, seeds))
    if hasattr(method, "upscale_noted"):
        return method.upscale_noted(lr, seeds)
    return method.upscale(lr, seeds), [{} for _ in seeds]


def finish(steps: Generator[Any, None, T]) -> T:
    """Run a generator to its end; what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def counted(steps: Generator[float, None, T], done: int, images: int) -> Generator[float, None, T]:
    """The steps of a batch of `images`, yielding how many images are done when `done` were before it."""
    while True:
        try:
            share = next(steps)
        except StopIteration as end:
            return end.value
        yield round(done + share * images, 2)


def fingerprint(*parts: object) -> str:
    """sha256 of the parts' text and this release's version, so that no release takes another's outputs for its own."""
    return hashlib.sha256("\x1f".join(map(str, (sr3eval.__version__, *parts))).encode()).hexdigest()


def check_outputs(outputs: Tensor, shape: tuple[int, ...], where: str) -> None:
    """Raise UserError unless `outputs` are float32 of `shape`, finite and in [0, 1]."""
    if not isinstance(outputs, Tensor):
        kind = type(outputs)
        what = "a numpy array" if kind.__module__ == "numpy" else f"{kind.__module__}.{kind.__name__}"
        raise UserError(f"{where}: gave {what.removeprefix('builtins.')}, not a tensor")
    if tuple(outputs.shape) != shape or outputs.dtype != torch.float32:
        raise UserError(f"{where}: gave {outputs.dtype} {tuple(outputs.shape)}, not float32 {shape}")
    if not bool(outputs.isfinite().all()):
        raise UserError(f"{where}: gave NaN or infinite pixels")
    low, high = float(outputs.min()), float(outputs.max())
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise UserError(f"{where}: gave values in [{low:.3g}, {high:.3g}]; they must be in [0, 1] (clamp overshoots)")


class Bicubic:
    """Keys' cubic with a = -0.5, clamped: the baseline of every table, and the example of a Method."""

    name = "bicubic"
    device = torch.device("cpu")

    def __init__(self, scale: int) -> None:
        self.scale = scale
        self.fingerprint = fingerprint("bicubic a=-0.5", scale)

    def upscale(self, lr: Tensor, seeds: Sequence[int]) -> Tensor:
        """[N, 3, h, w] to [N, 3, h * scale, w * scale] in [0, 1]; deterministic, seeds are not used."""
        height, width = lr.shape[-2:]
        with threads(1):
            return bicubic_up(lr, (height * self.scale, width * self.scale)).clamp(0, 1)


class Precomputed:
    """Outputs that somebody else made: a folder or a zip file whose image ids are those of the data.

    Pictures, and arrays in .npy and .pt files (see `sr3eval.arrays`).
    pattern: a regular expression with a group `id`, for other names: it must match all of a file's path inside,
    without suffix, or where it matches none of the paths, the files' names. Files that it does not match are passed
    over. An id that is none of the data's stands for the image of that file name: `(?P<id>.+)_x4_SR` finds the output
    of "animals/0801" in "0801_x4_SR.png" and in "0801/0801_x4_SR.png".
    checksums: sha256 over ids and contents of what is used; warning: what a reader of its scores must know, or nothing;
    both from `check` on.

    No Method, since it cannot upscale: `check` before the run, then `read` each image.
    """

    name = "precomputed"

    def __init__(self, folder: Path, pattern: str | None = None) -> None:
        self.folder, self.pattern = folder, pattern
        packed = folder.suffix.lower() == ".zip" and not folder.is_dir()
        kinds = SUFFIXES | arrays.SUFFIXES
        files: list[tuple[str, Picture]] = list(zipped_pictures(folder, kinds) if packed else pictures(folder, kinds))
        named = _named(files, pattern) if pattern is not None else files
        if not named:
            found = f"none of its {number(len(files), 'image')} matches {pattern}" if files else "no images in it"
            raise UserError(f"{folder}: {found}")
        self.paths = by_id(folder, named)
        self.checksums: dict[str, str] = {}
        self.warning = ""

    def check(self, ids: Sequence[str], known: Iterable[str], size: int) -> None:
        """Refuse the folder unless it has every one of `ids` at `size` x `size`, and nothing beyond the ids `known`.

        Raises one UserError that counts the missing, unknown and wrongly sized files and names the first of each.
        """
        known = set(known)
        if self.pattern is not None:
            self.paths = by_id(self.folder, self._placed(known))
        wrong = [i for i in ids if i in self.paths and _size(self.paths[i]) != (size, size)]
        problems = {
            "missing": [i for i in ids if i not in self.paths],
            "unknown": sorted(self.paths.keys() - known),
            f"not {size}x{size}": wrong,
        }
        found = [f"{len(names)} {what} (first: {names[0]})" for what, names in problems.items() if names]
        if found:
            raise UserError(f"{self.folder}: {', '.join(found)}")
        try:
            self.checksums = {self.folder.name: digest_of({i: self.paths[i] for i in ids})}
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UserError(f"{self.folder}: damaged ({error})") from None
        lossy = sum(_is_jpeg(self.paths[i]) for i in ids)
        if lossy:
            self.warning = f"{lossy} of its {number(len(ids), 'output')} saved as JPEG, whose losses are scored with it"

    def _placed(self, known: set[str]) -> Iterator[tuple[str, Picture]]:
        """Files by the ids `known`: an id that is none of them stands for the one that has it as its file name."""
        by_name: dict[str, list[str]] = {}
        for image_id in sorted(known):
            by_name.setdefault(PurePosixPath(image_id).name, []).append(image_id)
        for own, file in self.paths.items():
            path = PurePosixPath(own)
            meant = [own] if own in known else by_name.get(path.name, [own])
            if len(meant) > 1:  # its folders may say which
                meant = [i for i in meant if set(PurePosixPath(i).parts) <= set(path.parts)] or meant
            if len(meant) > 1:
                raise UserError(f'{self.folder}: "{own}" may be {" or ".join(meant[:2])}; keep folders in the id')
            yield meant[0], file

    def read(self, image_id: str) -> Tensor:
        """The output [3, H, W] in [0, 1]."""
        path = self.paths[image_id]
        return arrays.load(path) if _is_array(path) else load(path)


def _is_array(path: Picture) -> bool:
    return path.suffix.lower() in arrays.SUFFIXES


def _is_jpeg(path: Picture) -> bool:
    with path.open("rb") as file:
        return bool(file.read(3) == b"\xff\xd8\xff")


def _size(path: Picture) -> tuple[int, int]:
    """(height, width) in pixels."""
    if not _is_array(path):
        return header_size(path)
    _, height, width = arrays.load(path).shape
    return height, width


def _named(files: Iterable[tuple[str, Picture]], pattern: str) -> list[tuple[str, Picture]]:
    """The files whose paths match, or else those whose names match, by the pattern's group `id`."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f'pattern = "{pattern}": not a regular expression ({error})') from None
    if "id" not in expression.groupindex:
        raise UserError(f'pattern = "{pattern}": has no group (?P<id>...)')
    whole = [(expression.fullmatch(path), file) for path, file in files]
    names = [(expression.fullmatch(PurePosixPath(path).name), file) for path, file in files]
    for matches in (whole, names):
        if found := [(match["id"], file) for match, file in matches if match and match["id"]]:
            return found
    return []


class Reference:
    """The HR images themselves, as a row of tables ("Reference", "Baseline") that no method is compared with."""

    name = "reference"


STEP = re.compile(r"bicubic [1-9][0-9]*")


class Composed:
    """A method of another scale or size than the task's, between resizes that the config names.

    path: e.g. ["bicubic 64", "method", "bicubic 224"] takes 56x56 inputs through a 64 -> 256 model to 224x224. Values
    are clamped to [0, 1] after each resize and not rounded. Raises UserError for a path that does not end at the task's
    size.
    """

    def __init__(self, method: Method, path: Sequence[str], task: Task) -> None:
        self.name, self.scale, self.path, self.method = method.name, task.scale, tuple(path), method
        self.fingerprint = fingerprint(method.fingerprint, *path)
        self.checksums = getattr(method, "checksums", {})
        self.one_by_one = getattr(method, "one_by_one", False)
        side, lr_size = task.lr_size, getattr(method, "lr_size", None)
        for step in path:
            if step == "method" and lr_size not in (None, side):
                raise UserError(f"path: {list(path)} gives {side} pixels to a method that takes {lr_size}")
            side = side * (method.scale or task.scale) if step == "method" else _side(step)
        if path.count("method") != 1 or side != task.hr_size:
            raise UserError(
                f'path: {list(path)} makes {side} pixels of {task.lr_size}; it must hold "method" once and end at '
                f"{task.hr_size}"
            )

    def upscale(self, lr: Tensor, seeds: Sequence[int]) -> Tensor:
        """[N, 3, h, w] to the task's [N, 3, H, W] in [0, 1]; seeds are the method's."""
        return finish(self.upscale_steps(lr, seeds))[0]

    def upscale_steps(self, lr: Tensor, seeds: Sequence[int]) -> Work:
        """`upscale` with the steps and the notes of the method."""
        notes: Notes = []
        for step in self.path:
            if step == "method":
                lr, notes = yield from work(self.method, lr, seeds)
            else:
                lr = resize_square(lr, _side(step)).clamp(0, 1)
        return lr, notes


def _side(step: str) -> int:
    if not STEP.fullmatch(step):
        raise UserError(f'path: "{step}" is neither "method" nor "bicubic SIDE"')
    return int(step.split()[1])
