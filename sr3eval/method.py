"""What a super-resolution method is, and those that need no network: bicubic, outputs in a folder, HR itself."""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

import sr3eval
from sr3eval import arrays
from sr3eval.arrays import OVERSHOOT
from sr3eval.data import by_id, pictures, zipped_pictures
from sr3eval.device import default_device, threads
from sr3eval.errors import UserError, number
from sr3eval.files import digest_of
from sr3eval.images import SUFFIXES, bicubic_up, header_size, load, resize_square
from sr3eval.tasks import Task

Picture = Path | zipfile.Path
Size = tuple[int, int]  # (height, width) in pixels
Progress = Callable[[float], None]  # is told the share of a batch's work that is done, in (0, 1]


@dataclass(frozen=True)
class Facts:
    """What is known of a method, for readers of its scores; empty where nothing is.

    checksums: sha256 by file of weights. architecture: whose network, of which size. lr_kernel: what made the inputs
    that it was trained on. licence: of its weights. warning: what its scores must not be read without.
    """

    checksums: Mapping[str, str] = field(default_factory=dict)
    architecture: str = ""
    lr_kernel: str = ""
    licence: str = ""
    warning: str = ""


@dataclass(frozen=True)
class Upscaled:
    """images: [N, 3, H, W], float32 in [0, 1]. notes: what there is to say of each image, e.g. {"converged": False},
    which JSON holds; one an image, or none at all.
    """

    images: Tensor
    notes: Sequence[Mapping[str, Any]] = ()


@runtime_checkable
class Method(Protocol):
    """Turns low-resolution images into high-resolution ones. Subclass it: what you do not set keeps its default.

    name: as messages call it.
    fingerprint: hash of the weights and of every setting that changes outputs. With the code and the device, it names
        the cache entry. A method from somebody's own file may leave it empty: that file, what it imports and the files
        that its options name are hashed anyway.
    scale: factor by which sides grow; None takes the task's own.
    lr_size: side of the only inputs that it takes.
    facts: see `Facts`.
    one_by_one: it makes the images of a batch one after the other, so that none need wait for the others.
    deterministic: the same input and seed give the same image.
    copied: its outputs are looked up, not made.
    """

    name: str
    fingerprint: str = ""
    scale: int | None = None
    lr_size: int | None = None
    facts: Facts = Facts()
    one_by_one: bool = False
    deterministic: bool = True
    copied: bool = False

    @cached_property
    def device(self) -> torch.device:
        """Where its network runs."""
        return default_device()

    def check(self, ids: Sequence[str], sizes: Mapping[str, Size]) -> None:
        """Called once before work: raise UserError where the images `ids` cannot be had.

        sizes: of the HR of every image of the data, of which the run may take fewer.
        """
        return

    def lookup(self, image_id: str) -> Tensor | None:
        """The output [3, H, W] in [0, 1] where it exists already; None: it has to be made."""
        return None

    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, w] to [N, 3, H, W], both float32 in [0, 1]; image i draws its noise from seeds[i] alone."""
        ...


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


class Bicubic(Method):
    """Keys' cubic with a = -0.5, clamped: the baseline of every table, and the example of a Method."""

    name = "bicubic"
    device = torch.device("cpu")

    def __init__(self, scale: int) -> None:
        self.scale: int = scale
        self.fingerprint = fingerprint("bicubic a=-0.5", scale)

    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, w] to [N, 3, h * scale, w * scale] in [0, 1]; seeds are not used."""
        height, width = lr.shape[-2:]
        with threads(1):
            return Upscaled(bicubic_up(lr, (height * self.scale, width * self.scale)).clamp(0, 1))


class Precomputed(Method):
    """Outputs that somebody else made: a folder or a zip file whose image ids are those of the data.

    Pictures, and arrays in .npy and .pt files (see `sr3eval.arrays`).
    pattern: a regular expression with a group `id`, for other names: it must match all of a file's path inside,
    without suffix, or where it matches none of the paths, the files' names. Files that it does not match are passed
    over. An id that is none of the data's stands for the image of that file name: `(?P<id>.+)_x4_SR` finds the output
    of "animals/0801" in "0801_x4_SR.png" and in "0801/0801_x4_SR.png".
    From `check` on, `facts` has one sha256 over ids and contents of what is used, and a warning of lossy files.
    """

    name = "precomputed"
    copied = True
    device = torch.device("cpu")

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

    def check(self, ids: Sequence[str], sizes: Mapping[str, Size]) -> None:
        """Refuse the folder unless it has every one of `ids` at its size, and nothing that is not in `sizes`.

        Raises one UserError that counts the missing, unknown and wrongly sized files and names the first of each.
        """
        if self.pattern is not None:
            self.paths = by_id(self.folder, self._placed(set(sizes)))
        wrong = [i for i in ids if i in self.paths and _size(self.paths[i]) != sizes[i]]
        wanted = "x".join(map(str, sizes[wrong[0]])) if wrong else ""
        problems = {
            "missing": [i for i in ids if i not in self.paths],
            "unknown": sorted(self.paths.keys() - sizes.keys()),
            f"not {wanted}" if len({sizes[i] for i in wrong}) == 1 else f"not the size of their HR, {wanted}": wrong,
        }
        found = [f"{len(names)} {what} (first: {names[0]})" for what, names in problems.items() if names]
        if found:
            raise UserError(f"{self.folder}: {', '.join(found)}")
        try:
            sha256 = digest_of({i: self.paths[i] for i in ids})
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UserError(f"{self.folder}: damaged ({error})") from None
        lossy = sum(_is_jpeg(self.paths[i]) for i in ids)
        warning = f"{lossy} of its {number(len(ids), 'output')} saved as JPEG, whose losses are scored with it"
        self.facts = Facts({self.folder.name: sha256}, warning=warning if lossy else "")
        self.fingerprint = fingerprint(self.name, sha256)

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

    def lookup(self, image_id: str) -> Tensor:
        """The output [3, H, W] in [0, 1]."""
        path = self.paths[image_id]
        return arrays.load(path) if _is_array(path) else load(path)

    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """Refused: there are the outputs of `lookup`, and no others."""
        raise UserError(f"{self.folder}: holds outputs and no method that could upscale other images")


def _is_array(path: Picture) -> bool:
    return path.suffix.lower() in arrays.SUFFIXES


def _is_jpeg(path: Picture) -> bool:
    with path.open("rb") as file:
        return bool(file.read(3) == b"\xff\xd8\xff")


def _size(path: Picture) -> Size:
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


class Reference(Method):
    """The HR images themselves, as a row of tables ("Reference", "Baseline") that no method is compared with."""

    name = "reference"
    copied = True
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.fingerprint = fingerprint(self.name)

    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """Refused: HR is there, or it is not."""
        raise UserError("reference is the HR images themselves and upscales none")


STEP = re.compile(r"bicubic [1-9][0-9]*")


class Composed(Method):
    """A method of another scale or size than the task's, between resizes that the config names.

    path: e.g. ["bicubic 64", "method", "bicubic 224"] takes 56x56 inputs through a 64 -> 256 model to 224x224. Values
    are clamped to [0, 1] after each resize and not rounded. Raises UserError for a path that does not end at the task's
    size.
    """

    def __init__(self, method: Method, path: Sequence[str], task: Task) -> None:
        self.name, self.scale, self.path, self.method = method.name, task.scale, tuple(path), method
        self.fingerprint = fingerprint(method.fingerprint, *path)
        self.facts, self.one_by_one, self.device = method.facts, method.one_by_one, method.device
        side, lr_size = task.lr_size, method.lr_size
        for step in path:
            if step == "method" and lr_size not in (None, side):
                raise UserError(f"path: {list(path)} gives {side} pixels to a method that takes {lr_size}")
            side = side * (method.scale or task.scale) if step == "method" else _side(step)
        if path.count("method") != 1 or side != task.hr_size:
            raise UserError(
                f'path: {list(path)} makes {side} pixels of {task.lr_size}; it must hold "method" once and end at '
                f"{task.hr_size}"
            )

    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, w] to the task's [N, 3, H, W] in [0, 1]; seeds, progress and notes are the method's."""
        sr = Upscaled(lr)
        for step in self.path:
            if step == "method":
                sr = self.method.upscale(sr.images, seeds, progress)
            else:
                sr = replace(sr, images=resize_square(sr.images, _side(step)).clamp(0, 1))
        return sr


def _side(step: str) -> int:
    if not STEP.fullmatch(step):
        raise UserError(f'path: "{step}" is neither "method" nor "bicubic SIDE"')
    return int(step.split()[1])
