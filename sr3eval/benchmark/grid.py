"""A paper's figure of several images: a row each, from the input over the methods to HR; or images of a cascade."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.figure import Enlargement, check_image, folders_of_methods
from sr3eval.benchmark.layout import HR, LR, RunFolder
from sr3eval.benchmark.page import GAP, LINE, Page, check_suffix, fitting_font, read_picture
from sr3eval.config import read_toml
from sr3eval.data import choose
from sr3eval.diffusion.cascade_folder import CONFIG_FILE as CASCADE
from sr3eval.errors import UserError, nearest
from sr3eval.folders import find_images

SMALLEST, LARGEST = 192, 512  # pixels: of the longer side of a picture; smaller ones are enlarged, larger ones shrunk
CLOSE = 4  # pixels: between pictures
SHEET = 8  # pictures in a row of a cascade
Row = dict[str | int, Image.Image]  # a picture by what stands above its column, or by the place of one without name


@dataclass(frozen=True)
class Shown:
    """What a grid shows.

    Attributes:
        images: ids; by default so many `rows` of each folder, chosen by the hashes of their ids.
        rows: of each folder.
        methods: names, in the order to show them; all of a run by default.
        enlarge_lr: how the input is enlarged.
        samples: a column for every sample of the methods that have several.
        hr: whether HR is the last column.
        stages: those of a cascade beside each other; without, its images are a sheet.
        zoom: below each row, the middle of its pictures so many times larger.
    """

    images: Sequence[str] = ()
    rows: int = 4
    methods: Sequence[str] = ()
    enlarge_lr: Enlargement = "bicubic"
    samples: bool = False
    hr: bool = True
    stages: bool = False
    zoom: int | None = None


def write(folders: Sequence[Path], out: Path, shown: Shown) -> Path:
    """Write the grid of finished runs, or of folders of `sr3eval cascade`, as `out` (.png or .pdf); return that path.

    Pictures are enlarged by whole factors. Raises UserError for an unknown image or method, a cascade that kept no
    stages, another suffix, and PDF without matplotlib.
    """
    check_suffix(out)
    found: list[Row] = []
    for folder in folders:
        is_cascade = (folder / CASCADE).is_file()
        found += _of_cascade(folder, shown) if is_cascade else _of_run(RunFolder(folder), shown)
    if (zoom := shown.zoom) is not None:
        found = [part for row in found for part in (row, {name: _middle(p, zoom) for name, p in row.items()})]
    return _page(found).write(out)


def _of_run(run: RunFolder, shown: Shown) -> Iterator[Row]:
    methods = folders_of_methods(RunConfig.parse(read_toml(run.config)), shown.methods, shown.samples)
    for image in shown.images:
        check_image(run, image)
    for image in shown.images or choose(run.ids(LR), shown.rows):
        row: Row = {"Input": read_picture(run.image(LR, image))}
        row |= {name: read_picture(run.image(slug, image)) for name, slug in methods.items()}
        size = list(row.values())[-1].size
        row["Input"] = row["Input"].resize(size, Image.Resampling[shown.enlarge_lr.upper()])
        if shown.hr and run.image(HR, image).exists():
            row["HR"] = read_picture(run.image(HR, image))
        yield row


def _of_cascade(folder: Path, shown: Shown) -> Iterator[Row]:
    """A row an image, from noise to its last stage; or rows of images."""
    known, kept = list(find_images(folder / "images")), [path.name for path in sorted(folder.glob("stage_*"))]
    for image in shown.images:
        if image not in known:
            raise UserError(f'{folder} has no image "{image}": {nearest(image, known)}')
    if shown.stages and not kept:
        raise UserError(f"{folder} has no stages: make it with keep_stages = true")
    chosen = shown.images or choose(known, shown.rows if shown.stages else shown.rows * SHEET)
    pictures = [
        [read_picture(folder / at / f"{image}.png") for at in (*kept * shown.stages, "images")] for image in chosen
    ]
    if shown.stages:
        for row in pictures:
            yield {f"{picture.width}x{picture.height}": picture for picture in row}
        return
    for start in range(0, len(pictures), SHEET):
        yield {place: picture for place, (picture,) in enumerate(pictures[start : start + SHEET])}


def _middle(picture: Image.Image, zoom: int) -> Image.Image:
    """The middle of a picture, 1 / zoom of its sides."""
    width, height = (max(1, round(length / zoom)) for length in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _page(rows: Sequence[Row]) -> Page:
    """Columns of one width, in the order in which they are first met."""
    if not rows:
        raise UserError("there is no image to show")
    names = list(dict.fromkeys(name for row in rows for name in row))
    side = max(max(picture.size) for row in rows for picture in row.values())
    side = min(max(side, SMALLEST), LARGEST)
    titles = [str(name) if isinstance(name, str) else "" for name in names]
    header = LINE if any(titles) else 0
    pictures, top = [], header
    for row in rows:
        scaled = {name: _scaled(picture, side) for name, picture in row.items()}
        height = max(picture.height for picture in scaled.values())
        for name, picture in scaled.items():
            left = names.index(name) * (side + CLOSE) + (side - picture.width) // 2
            pictures.append((left, top + (height - picture.height) // 2, picture))
        top += height + CLOSE
    texts = [(place * (side + CLOSE) + side / 2, header / 2, title) for place, title in enumerate(titles)]
    size = len(names) * (side + CLOSE) - CLOSE, top - CLOSE
    return Page(size, pictures, texts, fitting_font(titles, side - GAP))


def _scaled(picture: Image.Image, side: int) -> Image.Image:
    """Enlarged by a whole factor, pixel by pixel, or shrunk, into a square of that side."""
    longest = max(picture.size)
    if longest > side:
        size = [max(1, round(length * side / longest)) for length in picture.size]
        return picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    factor = math.floor(side / longest)
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)
