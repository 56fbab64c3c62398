"""A paper's figure of one image of a run: the whole with a window, and that window of LR, every method and HR."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import pandas as pd
from PIL import Image, ImageDraw

from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.layout import HR, LR, RunFolder
from sr3eval.benchmark.page import GAP, LINE, Page, check_suffix, fitting_font, read_picture
from sr3eval.benchmark.scores import read_conventions
from sr3eval.config import read_toml
from sr3eval.errors import UserError, nearest

CROP = 192  # pixels: about the side of an enlarged window
FRAME = (230, 30, 30)
Enlargement = Literal["nearest", "bicubic"]


@dataclass(frozen=True)
class Window:
    """A part of an image, in pixels of HR."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> "Window":
        """Read "X,Y,WIDTH[,HEIGHT]"; without HEIGHT it is a square."""
        if not re.fullmatch(r"\d+(,\d+){2,3}", text.replace(" ", "")):
            raise UserError(f'--window {text}: write it as "X,Y,WIDTH" or "X,Y,WIDTH,HEIGHT", in pixels of HR')
        x, y, width, *height = (int(value) for value in text.split(","))
        return cls(x, y, width, *height or [width])

    @property
    def box(self) -> tuple[int, int, int, int]:
        """left, top, right, bottom"""
        return self.x, self.y, self.x + self.width, self.y + self.height

    def scaled(self, size: tuple[int, int], to: tuple[int, int]) -> tuple[float, float, float, float]:
        """The box in the same image of another size, say LR; sizes are (width, height)."""
        x, y = to[0] / size[0], to[1] / size[1]
        left, top, right, bottom = self.box
        return left * x, top * y, right * x, bottom * y

    def check(self, size: tuple[int, int]) -> None:
        """Raise UserError unless it lies inside an image of that size (width, height)."""
        if not (self.width and self.height and self.box[2] <= size[0] and self.box[3] <= size[1]):
            shown = ",".join(map(str, (self.x, self.y, self.width, self.height)))
            raise UserError(f"--window {shown}: not inside the image of {size[0]}x{size[1]} pixels")


@dataclass(frozen=True)
class Panel:
    """An enlarged window with its two lines of caption."""

    picture: Image.Image
    name: str
    score: str = ""


@dataclass(frozen=True)
class Figure:
    """The whole image on the left, the panels in rows on the right; lengths in pixels."""

    whole: Image.Image
    panels: Sequence[Panel]
    columns: int

    @cached_property
    def cell(self) -> tuple[int, int]:
        """Width and height of a panel with its caption."""
        width, height = self.panels[0].picture.size
        return width, height + self.caption

    @property
    def caption(self) -> int:
        """Height below a picture."""
        return LINE * (2 if any(panel.score for panel in self.panels) else 1)

    @cached_property
    def size(self) -> tuple[int, int]:
        rows = math.ceil(len(self.panels) / self.columns)
        return self.whole.width + self.columns * (self.cell[0] + GAP), rows * (self.cell[1] + GAP) - GAP

    def page(self) -> Page:
        """The panels in reading order."""
        (width, height), left = self.cell, self.whole.width + GAP
        pictures, texts = [(0, 0, self.whole)], []
        for i, panel in enumerate(self.panels):
            x, y = left + i % self.columns * (width + GAP), i // self.columns * (height + GAP)
            pictures.append((x, y, panel.picture))
            for line, text in enumerate((panel.name, panel.score)):
                texts.append((x + panel.picture.width / 2, y + panel.picture.height + LINE * (line + 0.6), text))
        return Page(self.size, pictures, texts, fitting_font([text for *_, text in texts], width + GAP))


def write(
    run: Path,
    image: str,
    window: Window,
    out: Path,
    methods: Sequence[str] = (),
    columns: int | None = None,
    enlarge_lr: Enlargement = "nearest",
    samples: bool = False,
) -> Path:
    """Write the figure of an image of a finished run, as `out` (.png or .pdf), and return that path.

    methods: names, in the order to show them; all of the run by default. columns: of windows; by default two rows.
    samples: show every sample of the methods that have several, not the first alone.
    Windows are enlarged by a whole factor without interpolation; the PDF's text is text. Raises UserError for an
    unknown image or method, a window outside the image, another suffix, and PDF without matplotlib.
    """
    check_suffix(out)
    folder = RunFolder(run)
    shown = folders_of_methods(RunConfig.parse(read_toml(folder.config)), methods, samples)
    check_image(folder, image)
    panels, whole = _pictures(folder, image, window, shown, enlarge_lr)
    return _arranged(whole, window, panels, columns).page().write(out)


def check_image(run: RunFolder, image: str) -> None:
    """Raise UserError unless a run has the image."""
    if not run.image(LR, image).exists():
        raise UserError(f'{run.path} has no image "{image}": {nearest(image, run.ids(LR))}')


def folders_of_methods(config: RunConfig, names: Sequence[str], samples: bool = False) -> dict[str, str]:
    """{caption: folder} of what is shown."""
    known = {row.name: row for row in config.rows if row.is_picture}
    for name in names:
        if name not in known:
            raise UserError(f'unknown method "{name}": {nearest(name, known)}')
    shown: dict[str, str] = {}
    for name in names or known:
        row = known[name]
        shown[name] = row.slug
        if samples and row.of == "first":
            others = enumerate(row.method.sample_folders(row.slug)[1:], start=2)
            shown |= {f"{name}, sample {number}": folder for number, folder in others}
    return shown


def _pictures(
    folder: RunFolder, image: str, window: Window, methods: Mapping[str, str], enlarge_lr: Enlargement
) -> tuple[list[Panel], Image.Image]:
    """The panels, and the whole: HR, or LR enlarged to its size where the run has none."""
    lr = read_picture(folder.image(LR, image))
    outputs = {name: read_picture(folder.image(slug, image)) for name, slug in methods.items()}
    has_hr = folder.image(HR, image).exists()
    whole = (
        read_picture(folder.image(HR, image))
        if has_hr
        else lr.resize(next(iter(outputs.values())).size, Image.Resampling.BICUBIC)
    )
    window.check(whole.size)
    factor = max(1, round(CROP / max(window.width, window.height)))
    size = (factor * window.width, factor * window.height)
    names, scores = _scores(folder, image)

    def enlarged(picture: Image.Image, kind: Enlargement = "nearest") -> Image.Image:
        return picture.resize(size, Image.Resampling[kind.upper()], box=window.scaled(whole.size, picture.size))

    panels = [Panel(enlarged(lr, enlarge_lr), "LR" if enlarge_lr == "nearest" else "LR (bicubic)")]
    panels += [Panel(enlarged(output), name, scores.get(name, "")) for name, output in outputs.items()]
    legend = Panel(enlarged(whole), "HR", names) if has_hr else Panel(panels[0].picture, panels[0].name, names)
    return ([*panels, legend] if has_hr else [legend, *panels[1:]]), whole


def _scores(folder: RunFolder, image: str) -> tuple[str, dict[str, str]]:
    """What the second lines say: the run's first two metrics ("PSNR / SSIM"), and by method its scores of the image."""
    scores = pd.read_csv(folder.per_image, keep_default_na=False, na_values={"value": ""}, dtype={"image_id": str})
    scores = scores[scores["image_id"] == image]
    metrics = read_conventions(folder.path)
    chosen = [name for name in metrics if name in set(scores["metric"])][:2]
    values = scores.pivot(index="method", columns="metric", values="value") if chosen else pd.DataFrame()
    lines = {str(m): " / ".join(f"{row[c]:.{metrics[c].decimals}f}" for c in chosen) for m, row in values.iterrows()}
    return " / ".join(metrics[m].label for m in chosen), lines


def _arranged(whole: Image.Image, window: Window, panels: Sequence[Panel], columns: int | None) -> Figure:
    """The figure, its whole image framed and as high as the rows of windows are."""
    if columns is not None and columns < 1:
        raise UserError(f"--columns {columns}: at least one is needed")
    columns = min(columns or math.ceil(len(panels) / 2), len(panels))
    height = Figure(whole, panels, columns).size[1] - Figure(whole, panels, columns).caption
    factor = height / whole.height
    kind = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST
    framed = whole.resize((round(whole.width * factor), height), kind)
    edges = [round(edge * factor) for edge in window.box]
    ImageDraw.Draw(framed).rectangle((edges[0] - 2, edges[1] - 2, edges[2] + 1, edges[3] + 1), outline=FRAME, width=2)
    return Figure(framed, panels, columns)
