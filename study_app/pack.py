"""From a stimulus pack to pictures that tell nothing about where they are from.

Every picture goes through the same decoder and the same encoder, without metadata; the two files of a pair are padded
to one length. Catch trials are made from photographs alone, so that no model has a part in them.
"""

import hashlib
import io
import json
import random
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image, ImageChops, ImageCms, ImageOps, ImageStat

from sr3eval.config import from_dict
from sr3eval.errors import UserError, nearest
from sr3eval.packs import FORMAT, HR, LR, MANIFEST, Item, Manifest
from study_app.spec import Matchup, Spec

KINDS = ("practice", "test", "catch")
FILTERS = {"nearest": Image.Resampling.NEAREST, "bicubic": Image.Resampling.BICUBIC}
PADDING = b"paDd"  # ancillary, private, safe to copy: decoders skip it
PAD_TO = 4096  # bytes that lengths of pairs are multiples of, so that a length says little about the picture either
PART = 6  # eighths of a photograph's side that a wrong picture of Task-1 shows of it
MOSAIC = 8  # side of a catch picture's blocks is 1/MOSAIC of its width
LEAST_BLUR = 9  # levels, summed over the channels, by which a blur differs from its picture in the mean
NOISE = 64  # levels that each block is off by at most


@dataclass(frozen=True)
class Pair:
    """What one trial shows: PNG files of equal length, and for Task-1 the low-resolution picture at full size."""

    image_id: str
    kind: str
    number: int  # of its kind
    model: str  # "" for a catch trial
    width: int
    height: int
    real: bytes
    other: bytes
    middle: bytes | None
    group: str = ""  # of images
    rival: str = ""  # the model whose picture stands in for the real one


class Pack:
    """A folder with manifest.json. Raises UserError where the manifest is missing or not one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / MANIFEST
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{path}: no such file; make a pack with `python benchmark.py stimuli RUN --out PACK` or `study pack`"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path}: not a readable manifest ({error})") from None
        if not isinstance(data, dict) or data.get("format") not in range(1, FORMAT + 1):
            raise UserError(f"{path}: not a manifest of format 1 to {FORMAT}")
        self.manifest = from_dict(Manifest, data)
        ids = [item.image_id for item in self.manifest.items]
        if len(set(ids)) < len(ids):
            raise UserError(f"{path}: an image is listed twice")

    def slugs(self, models: Sequence[str] = ()) -> dict[str, str]:
        """Folder by method's name, for the `models` named (by name or folder), or all but the reference itself."""
        methods = self.manifest.methods
        names = {**{name: slug for slug, name in methods.items()}, **{slug: slug for slug in methods}}
        for model in models:
            if model not in names:
                raise UserError(f'the pack has no model "{model}": {nearest(model, methods.values())}')
        chosen = dict.fromkeys(names[model] for model in models) or dict.fromkeys(methods)
        return {methods[slug]: slug for slug in chosen}

    def pairs(self, spec: Spec, models: Mapping[str, str]) -> Iterator[Pair]:
        """Every pair that the study shows, practice, test and catch, verified and encoded again.

        Raises UserError for too few images, missing, changed or unreadable files, and sizes that differ.
        """
        if spec.noise > self.manifest.noise:
            raise UserError(f"{self.folder}: allows noise = {self.manifest.noise}, the study adds {spec.noise}")
        reference, matchups = self.reference(spec, models), spec.matchups(list(models))
        chosen = {kind: self._first(kind, getattr(spec, "images" if kind == "test" else kind)) for kind in KINDS}
        names = dict.fromkeys([matchup.rival for matchup in matchups] + [matchup.model for matchup in matchups])
        folders = {name: models.get(name, reference) for name in names}
        for kind in ("practice", "test"):
            for number, item in enumerate(chosen[kind]):
                pictures = self._pictures(item, folders)
                middle = self._middle(item, next(iter(pictures.values())).size, spec)
                for matchup in matchups:
                    yield _pair(item, number, matchup, pictures[matchup.rival], pictures[matchup.model], middle)
        yield from self._catch(chosen["catch"], reference, spec)

    def reference(self, spec: Spec, models: Mapping[str, str]) -> str:
        """The folder of the pictures that models are shown beside, and that catch trials show.

        The real ones, or those of `spec.against`; of pairs of models, the first one's if there are no real ones.
        """
        if spec.against:
            return next(iter(self.slugs([spec.against]).values()))
        if all(HR in item.sha256 for item in self.manifest.items):
            return HR
        if spec.compare == "models":
            return next(iter(models.values()))
        hint = 'compare = "models" compares models with one another, against = "MODEL" with one of them'
        raise UserError(f"{self.folder}: has no real pictures; {hint}")

    def _pictures(self, item: Item, folders: Mapping[str, str]) -> dict[str, Image.Image]:
        """By name; all of one size."""
        pictures: dict[str, Image.Image] = {}
        for name, folder in folders.items():
            size = next((picture.size for picture in pictures.values()), None)
            pictures[name] = self._read(folder, item, size)
        return pictures

    def _first(self, kind: str, count: int) -> list[Item]:
        """The first `count` of a kind: a study takes them in the order in which the pack's seed chose them."""
        items = [item for item in self.manifest.items if item.kind == kind]
        if len(items) < count:
            raise UserError(f"{self.folder}: the study needs {count} {kind} images, the pack has {len(items)}")
        return items[:count]

    def _catch(self, items: Sequence[Item], reference: str, spec: Spec) -> Iterator[Pair]:
        """Task-1: beside the right picture a part of another one; Task-2: beside it a mosaic of itself; or a blur."""
        reals = [self._read(reference, item) for item in items]
        if spec.catch_picture == "blur":
            others = [_blurred(item, real) for item, real in zip(items, reals, strict=True)]
        elif spec.task == 1:
            others = [_turned(other, i) for i, other in enumerate(_most_different(reals))]
        else:
            others = [_mosaic(real, i) for i, real in enumerate(reals)]
        for number, (item, real, other) in enumerate(zip(items, reals, others, strict=True)):
            yield _pair(item, number, Matchup(""), real, other, self._middle(item, real.size, spec))

    def _middle(self, item: Item, size: tuple[int, int], spec: Spec) -> Image.Image | None:
        if spec.task == 2:
            return None
        if LR not in item.sha256:
            raise UserError(
                f"{self.folder}: has no low-resolution pictures, which Task-1 shows; pack them, or set task = 2"
            )
        lr = self._read(LR, item)
        if lr.width > size[0] or lr.height * size[0] != lr.width * size[1]:
            raise UserError(f"{item.image_id}: the low-resolution picture ({by(lr.size)}) does not scale to {by(size)}")
        return lr.resize(size, FILTERS[spec.lr_resize])

    def _read(self, folder: str, item: Item, size: tuple[int, int] | None = None) -> Image.Image:
        path = self._path(folder, item.image_id)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != item.sha256.get(folder):
            raise UserError(f"{path}: not the file that the manifest names (its sha256 differs)")
        image = decode(content, path)
        if size is not None and image.size != size:
            raise UserError(f"{path}: is {by(image.size)}, the image's other pictures are {by(size)}")
        return image

    def _path(self, folder: str, image_id: str) -> Path:
        relative = PurePosixPath(folder, f"{image_id}.png")
        if relative.is_absolute() or ".." in relative.parts or "\x00" in str(relative):
            raise UserError(f"{self.folder}: {str(relative)!r} is not inside the pack")
        return self.folder / relative


def decode(content: bytes, path: object) -> Image.Image:
    """Decode a picture upright into RGB, 8 bit, sRGB (by its colour profile where it has one); errors name `path`."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            profile = image.info.get("icc_profile")
            if not _is_opaque_8_bit(image):
                raise UserError(f"{path}: is {image.mode} or transparent; 8-bit opaque pictures are needed")
            rgb = ImageOps.exif_transpose(image).convert("RGB")
            if profile:
                source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
                rgb = ImageCms.profileToProfile(rgb, source, ImageCms.createProfile("sRGB")) or rgb
    except (OSError, SyntaxError, ValueError, ImageCms.PyCMSError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable picture ({error})") from None
    return rgb


def _is_opaque_8_bit(image: Image.Image) -> bool:
    if image.mode in ("RGBA", "LA"):
        return image.getchannel("A").getextrema() == (255, 255)
    return image.mode in ("RGB", "L", "P") and "transparency" not in image.info


def encode(image: Image.Image) -> bytes:
    """PNG of the pixels alone; the same encoder for every picture."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", image.size, image.tobytes()).save(buffer, "png", compress_level=9)
    return buffer.getvalue()


def padded(png: bytes, length: int) -> bytes:
    """The same picture in a file of `length` bytes, by an ancillary chunk before its end (PNG §5.3, §5.4)."""
    end = len(png) - 12  # IEND: length, name, checksum
    return png[:end] + chunk(PADDING, bytes(length - len(png) - 12)) + png[end:]


def chunk(name: bytes, data: bytes) -> bytes:
    """A PNG chunk: its length, name, data and checksum."""
    return b"".join((struct.pack(">I", len(data)), name, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))))


def same_length(pngs: Iterable[bytes]) -> list[bytes]:
    """Pad files to one length, a multiple of PAD_TO; every file gets a padding chunk, even the longest."""
    pngs = list(pngs)
    length = -(-(max(map(len, pngs)) + 12) // PAD_TO) * PAD_TO
    return [padded(png, length) for png in pngs]


def _pair(
    item: Item, number: int, shown: Matchup, real: Image.Image, other: Image.Image, middle: Image.Image | None
) -> Pair:
    pictures = [real, other] if middle is None else [real, other, middle]
    first, second, *third = same_length(encode(picture) for picture in pictures)
    middle_png = third[0] if third else None
    head = (item.image_id, item.kind, number, shown.model)
    return Pair(*head, *real.size, first, second, middle_png, item.group, shown.rival)


def _most_different(images: Sequence[Image.Image]) -> list[Image.Image]:
    """For each photograph another one: of all rotations of the list the one whose most alike pair differs most."""
    count = len(images)

    def rotated(shift: int) -> list[Image.Image]:
        return [ImageOps.fit(images[(i + shift) % count], image.size) for i, image in enumerate(images)]

    def least(others: list[Image.Image]) -> float:
        return min(map(_distance, images, others))

    return max(map(rotated, range(1, count)), key=least, default=list(images))


def _distance(a: Image.Image, b: Image.Image) -> float:
    return sum(ImageStat.Stat(ImageChops.difference(a, b)).mean)


def _turned(image: Image.Image, seed: int) -> Image.Image:
    """Most of a picture, upside down and at full size: seen where it is itself shown, nobody knows it by that."""
    rng = random.Random(seed)
    width, height = (side * PART // 8 for side in image.size)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    box = (left, top, left + width, top + height)
    return image.transpose(Image.Transpose.ROTATE_180).resize(image.size, Image.Resampling.BICUBIC, box)


def _mosaic(image: Image.Image, seed: int) -> Image.Image:
    """Blocks of the picture's mean colours, each off by some levels, so that even a clear sky looks wrong."""
    rng = random.Random(seed)
    blocks = image.resize((MOSAIC, MOSAIC), Image.Resampling.BOX)
    noise = Image.frombytes("RGB", blocks.size, bytes(rng.randint(0, 2 * NOISE) for _ in range(3 * MOSAIC * MOSAIC)))
    return ImageChops.add(blocks, noise, offset=-NOISE).resize(image.size, Image.Resampling.NEAREST)


def _blurred(item: Item, image: Image.Image) -> Image.Image:
    """Without anything smaller than 1/MOSAIC of the picture."""
    small = image.resize((MOSAIC, MOSAIC), Image.Resampling.BOX)
    blurred = small.resize(image.size, Image.Resampling.BICUBIC)
    if _distance(image, blurred) < LEAST_BLUR:
        raise UserError(f"{item.image_id}: looks the same when blurred; make the pack with another --seed")
    return blurred


def by(size: tuple[int, int]) -> str:
    """A size as people write it."""
    return f"{size[0]}x{size[1]}"
