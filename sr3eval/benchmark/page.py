"""A page of pictures with captions, as .png with exact pixels or as .pdf whose text is text."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from sr3eval.errors import UserError
from sr3eval.files import atomic_write

GAP, LINE = 12, 22  # pixels: between pictures, and of a line of text
FONT_SIZES = range(16, 7, -1)  # pixels: the first at which every caption fits
LINE_WIDTH = 6.875  # inches: the text of a two-column page
WIDE = 800  # pixels: pages that are narrower do not fill the line


@dataclass(frozen=True)
class Page:
    """What is where, in pixels.

    Attributes:
        size: width and height.
        pictures: (left, top, picture).
        texts: (x, y, text), the middle of each.
        font_size: of all texts.
    """

    size: tuple[int, int]
    pictures: Sequence[tuple[int, int, Image.Image]]
    texts: Sequence[tuple[float, float, str]]
    font_size: int

    @property
    def inches(self) -> float:
        """A pixel's side as it is printed."""
        return LINE_WIDTH / max(self.size[0], WIDE)

    def write(self, out: Path) -> Path:
        """Write it as `out` (see `check_suffix`), and return that path; UserError for PDF without matplotlib."""
        _WRITERS[out.suffix.lower()](self, out)
        return out


def check_suffix(out: Path) -> None:
    """Raise UserError unless a page can be written as `out`."""
    if out.suffix.lower() not in _WRITERS:
        raise UserError(f"{out}: a figure is written as .png or .pdf")


def fitting_font(texts: Sequence[str], width: float) -> int:
    """The greatest size at which none of the texts is wider."""
    fits = (size for size in FONT_SIZES if max(map(_font(size).getlength, texts)) <= width)
    return next(fits, FONT_SIZES[-1])


def read_picture(path: Path) -> Image.Image:
    """An RGB picture of a finished run; UserError where there is none that can be read."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"{path}: no such picture; is the run finished?") from None
    except OSError as error:
        raise UserError(f"{path}: not a readable image ({error})") from None


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _write_png(page: Page, out: Path) -> None:
    canvas = Image.new("RGB", page.size, "white")
    draw, font = ImageDraw.Draw(canvas), _font(page.font_size)
    for left, top, picture in page.pictures:
        canvas.paste(picture, (left, top))
    for x, y, text in page.texts:
        draw.text((x, y), text, "black", font, anchor="mm")
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    atomic_write(out, buffer.getvalue())


def _write_pdf(page: Page, out: Path) -> None:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(f"{out}: needs matplotlib (pip install sr3eval[analysis]); a .png does not") from None
    width, height = page.size
    figure = Figure(figsize=(page.inches * width, page.inches * height))
    for left, top, picture in page.pictures:
        box = (left / width, 1 - (top + picture.height) / height, picture.width / width, picture.height / height)
        axes: Any = figure.add_axes(box)
        axes.imshow(picture, interpolation="none")
        axes.set_axis_off()
    for x, y, text in page.texts:
        size = 0.9 * 72 * page.inches * page.font_size  # points
        figure.text(x / width, 1 - y / height, text, ha="center", va="center", size=size, parse_math=False)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42}):  # TrueType, as publishers ask
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    atomic_write(out, buffer.getvalue())


_WRITERS = {".png": _write_png, ".pdf": _write_pdf}
