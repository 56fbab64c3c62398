"""The figure of one image: exact pixels in PNG, text in PDF, and what is refused."""

import sys

import numpy as np
import pytest
from PIL import Image

from sr3eval.benchmark.figure import GAP, LINE, Window, write
from sr3eval.errors import UserError

SIZES = {"Set5/baby": (128, 100), "Set5/bird": (64, 64)}
SCORES = {
    "ssim": {"Ours": [0.81234, 0.5], "R & D": [0.7, 0.6]},
    "psnr": {"Ours": [30.126, 20], "R & D": [float("inf"), 22]},
}


@pytest.fixture(scope="module")
def run(write_run, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("figure"), SIZES, SCORES)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def panels(figure, whole, columns, side, count):
    """The enlarged windows of a figure whose whole image is so wide, in reading order."""
    for index in range(count):
        left = whole + GAP + index % columns * (side + GAP)
        top = index // columns * (side + 2 * LINE + GAP)
        yield figure[top : top + side, left : left + side]


def test_windows_are_enlarged_pixel_by_pixel(run, tmp_path):
    out = write(run, "Set5/baby", Window.parse("40,20,32"), tmp_path / "figure.png")
    figure = pixels(out)
    height = 2 * 192 + 2 * LINE + GAP  # two rows, without the last captions; 6 x 32 = 192
    whole = round(height * 128 / 100)
    assert figure.shape == (height + 2 * LINE, whole + 2 * (192 + GAP), 3)
    for panel, slug in zip(panels(figure, whole, 2, 192, 4), ("_lr", "ours", "r-d", "_hr"), strict=True):
        picture = pixels(run / "images" / slug / "Set5" / "baby.png")
        picture = picture.repeat(4, 0).repeat(4, 1) if slug == "_lr" else picture
        assert (panel == picture[20:52, 40:72].repeat(6, 0).repeat(6, 1)).all()
    red = (figure[:height, :whole] == (230, 30, 30)).all(axis=2)
    rows, columns = np.nonzero(red)
    scale = height / 100
    assert np.abs([columns.min() - 40 * scale, columns.max() - 72 * scale]).max() < 3
    assert np.abs([rows.min() - 20 * scale, rows.max() - 52 * scale]).max() < 3


def test_methods_columns_and_bicubic_input(run, tmp_path):
    out = tmp_path / "figure.png"
    write(run, "Set5/baby", Window(40, 20, 32, 32), out, methods=["R & D"], columns=3, enlarge_lr="bicubic")
    figure = pixels(out)
    lr, method, hr = panels(figure, round(192 * 1.28), 3, 192, 3)
    small = Image.open(run / "images" / "_lr" / "Set5" / "baby.png")
    assert (lr == np.asarray(small.resize((192, 192), Image.Resampling.BICUBIC, box=(10, 5, 18, 13)))).all()
    assert (method[::6, ::6] == pixels(run / "images" / "r-d" / "Set5" / "baby.png")[20:52, 40:72]).all()
    assert (hr[::6, ::6] == pixels(run / "images" / "_hr" / "Set5" / "baby.png")[20:52, 40:72]).all()


def test_captions(run, monkeypatch, tmp_path):
    """The text of the PDF is text: of an embedded font, and with the scores of that image."""
    from matplotlib.figure import Figure

    said = []
    text = Figure.text
    monkeypatch.setattr(Figure, "text", lambda page, x, y, s, **how: said.append(s) or text(page, x, y, s, **how))
    content = write(run, "Set5/baby", Window.parse("0, 0, 128, 100"), tmp_path / "figure.pdf").read_bytes()
    assert content.startswith(b"%PDF") and b"/FontFile2" in content
    expected = ["LR", "", "Ours", "30.13 / 0.812", "R & D", "inf / 0.700", "HR", "PSNR / SSIM"]
    assert said == expected


def test_without_hr_the_input_is_the_whole(write_run, tmp_path):
    run = write_run(tmp_path / "run", {"a": (64, 48)}, {"niqe": {"Ours": [4.0], "R & D": [5.0]}}, hr=False)
    figure = pixels(write(run, "a", Window(16, 8, 32, 32), tmp_path / "figure.png", columns=3))
    lr, ours, _ = panels(figure, 256, 3, 192, 3)
    assert (lr[::24, ::24] == pixels(run / "images" / "_lr" / "a.png")[2:10, 4:12]).all()
    assert (ours[::6, ::6] == pixels(run / "images" / "ours" / "a.png")[8:40, 16:48]).all()


BAD = {
    "image": ({"image": "Set5/babi"}, 'has no image "Set5/babi": did you mean "Set5/baby"?'),
    "method": ({"methods": ["Our"]}, 'unknown method "Our": did you mean "Ours"?'),
    "window": ({"window": Window(100, 0, 32, 32)}, "--window 100,0,32,32: not inside the image of 128x100 pixels"),
    "empty": ({"window": Window(0, 0, 0, 0)}, "not inside the image"),
    "columns": ({"columns": 0}, "--columns 0: at least one is needed"),
    "suffix": ({"out": "figure.jpg"}, "figure.jpg: a figure is written as .png or .pdf"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(run, tmp_path, case):
    changes, message = BAD[case]
    given = {"image": "Set5/baby", "window": Window(0, 0, 32, 32), "out": "figure.png"} | changes
    given["out"] = tmp_path / given["out"]
    with pytest.raises(UserError) as caught:
        write(run, **given)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4,5", "a,2,3", "-1,2,3", "1.5,2,3"])
def test_windows_that_cannot_be_read(text):
    with pytest.raises(UserError, match='write it as "X,Y,WIDTH" or'):
        Window.parse(text)


def test_pdf_without_matplotlib_is_one_line(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"needs matplotlib \(pip install sr3eval\[analysis\]\)"):
        write(run, "Set5/baby", Window(0, 0, 32, 32), tmp_path / "figure.pdf")
