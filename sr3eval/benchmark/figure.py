"""A paper's figure of one image of a run: the whole with a window, and that window of LR, every method and HR."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.layout import HR, LR, RunFolder
from sr3eval.benchmark.scores import read_conventions
from sr3eval.config import read_toml
from sr3eval.errors import UserError, nearest
from sr3eval.files import atomic_write

CROP = 192  # pixels: about the side of an enlarged window
GAP, LINE = 12, 22  # pixels: between pictures, and of a line of text
FONT_SIZES = range(16, 7, -1)  # pixels: the first at which every caption fits below its picture
FRAME = (230, 30, 30)
LINE_WIDTH = 6.875  # inches: the text of a two-column page
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

    @cached_property
    def font_size(self) -> int:
        texts = [text for panel in self.panels for text in (panel.name, panel.score)]
        fits = (s for s in FONT_SIZES if max(map(_font(s).getlength, texts)) <= self.cell[0] + GAP)
        return next(fits, FONT_SIZES[-1])

    def placed(self) -> list[tuple[int, int, Panel]]:
        """(left, top, panel) in reading order."""
        width, height = self.cell
        left = self.whole.width + GAP
        return [
            (left + i % self.columns * (width + GAP), i // self.columns * (height + GAP), panel)
            for i, panel in enumerate(self.panels)
        ]


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
    if out.suffix.lower() not in _WRITERS:
        raise UserError(f"{out}: a figure is written as .png or .pdf")
    folder = RunFolder(run)
    shown = _methods(RunConfig.parse(read_toml(folder.config)), methods, samples)
    if not folder.image(LR, image).exists():
        known = (path.relative_to(folder.images / LR) for path in (folder.images / LR).rglob("*.png"))
        raise UserError(
            f'{run} has no image "{image}": {nearest(image, (p.with_suffix("").as_posix() for p in known))}'
        )
    panels, whole = _pictures(folder, image, window, shown, enlarge_lr)
    _WRITERS[out.suffix.lower()](_arranged(whole, window, panels, columns), out)
    return out


def _methods(config: RunConfig, names: Sequence[str], samples: bool) -> dict[str, str]:
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
    lr = _read(folder.image(LR, image))
    outputs = {name: _read(folder.image(slug, image)) for name, slug in methods.items()}
    has_hr = folder.image(HR, image).exists()
    whole = (
        _read(folder.image(HR, image))
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


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"{path}: no such picture; is the run finished?") from None
    except OSError as error:
        raise UserError(f"{path}: not a readable image ({error})") from None


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


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _write_png(figure: Figure, out: Path) -> None:
    page = Image.new("RGB", figure.size, "white")
    page.paste(figure.whole, (0, 0))
    draw, font = ImageDraw.Draw(page), _font(figure.font_size)
    for left, top, panel in figure.placed():
        page.paste(panel.picture, (left, top))
        for line, text in enumerate((panel.name, panel.score)):
            middle = left + panel.picture.width / 2
            draw.text((middle, top + panel.picture.height + LINE * (line + 0.6)), text, "black", font, anchor="mm")
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    atomic_write(out, buffer.getvalue())


def _write_pdf(figure: Figure, out: Path) -> None:
    try:
        import matplotlib
        from matplotlib.figure import Figure as Page
    except ImportError:
        raise UserError(f"{out}: needs matplotlib (pip install sr3eval[analysis]); a .png does not") from None
    width, height = figure.size
    page = Page(figsize=(LINE_WIDTH, LINE_WIDTH * height / width))

    def show(picture: Image.Image, left: int, top: int) -> None:
        box = (left / width, 1 - (top + picture.height) / height, picture.width / width, picture.height / height)
        axes: Any = page.add_axes(box)
        axes.imshow(picture, interpolation="none")
        axes.set_axis_off()

    show(figure.whole, 0, 0)
    points = 72 * LINE_WIDTH / width  # a pixel
    for left, top, panel in figure.placed():
        show(panel.picture, left, top)
        for line, text in enumerate((panel.name, panel.score)):
            y = 1 - (top + panel.picture.height + LINE * (line + 0.6)) / height
            x = (left + panel.picture.width / 2) / width
            page.text(x, y, text, ha="center", va="center", size=0.9 * points * figure.font_size, parse_math=False)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42}):  # TrueType, as publishers ask
        page.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    atomic_write(out, buffer.getvalue())


_WRITERS = {".png": _write_png, ".pdf": _write_pdf}
