"""The report in a real browser, opened from disk: pixels of windows, difference maps, order, pages, runs without HR."""

import functools
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr3eval.benchmark import report, summary
from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.scores import read_conventions, read_run
from sr3eval.config import read_toml

SIZES = {"Set5/a&b 1": (320, 200), "Set5/c": (64, 48), "Set14/d": (160, 160), "Set14/e'f": (200, 136)}
# The range of dB is greatest for e'f, that of the errors (in levels, 255 * 10 ** (-dB / 20)) for d: 14.3 - 7.2.
PSNR = {"Ours": [30.0, 20.0, 31.0, 60.0], "R & D": [31.0, 22.0, 25.0, 45.0]}
SCORES = {"psnr": PSNR, "ssim": {name: [value / 100 for value in values] for name, values in PSNR.items()}}


@pytest.fixture(scope="module")
def run(write_run, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("report") / "run #1", SIZES, SCORES, dataset=True)


@functools.cache
def summarised(run):
    scores = read_run(run)
    return scores, summary.summarise(scores, read_conventions(run))


def write(run, out, **changes):
    """The report of a run, with constants of the module changed."""
    scores, results = summarised(run)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in changes.items():
            patch.setattr(report, name, value)
        config = RunConfig.parse(read_toml(run / "config.toml") | {"table": {"title": "Noise & more"}})
        report.write(run, config, results, scores, out)
    return out / "report.html"


@pytest.fixture
def open_page(chromium):
    """A function that opens a file in a browser; at the end, no script may have failed."""
    errors = []
    context = chromium.new_context(viewport={"width": 1200, "height": 900})

    def opened(path: Path):
        page = context.new_page()
        page.set_default_timeout(5000)
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(path.as_uri())
        return page

    yield opened
    context.close()
    assert not errors


def card(page, image_id):
    found = page.locator(f'article[data-id="{image_id}"]')
    found.scroll_into_view_if_needed()
    return found


def wait_for_window(found, box):
    found.locator("header span").filter(has_text=f"window {','.join(map(str, box))}").wait_for()
    found.page.wait_for_timeout(100)  # canvases follow the text


def shown(canvas, size):
    """The colours that a reader sees in the middle of each of the (width, height) pixels of an enlarged window."""
    with Image.open(io.BytesIO(canvas.screenshot())) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    rows, columns = (
        ((np.arange(n) + 0.5) * length / n).astype(int) for n, length in zip(size[::-1], pixels.shape[:2], strict=True)
    )
    return pixels[rows][:, columns]


def window(run, slug, image_id, box):
    """The window of a picture; of LR, each pixel four times in both directions."""
    with Image.open(run / "images" / slug / f"{image_id}.png") as image:
        pixels = np.asarray(image).astype(int)
    pixels = pixels.repeat(4, 0).repeat(4, 1) if slug == "_lr" else pixels
    return pixels[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]


@pytest.mark.parametrize("embedded", [0, report.EMBEDDED], ids=["files", "embedded"])
def test_a_click_chooses_the_window_that_every_method_shows(run, tmp_path, open_page, embedded):
    page = open_page(write(run, tmp_path / "out", EMBEDDED=embedded))
    page.select_option("#side", "32")
    found = card(page, "Set5/a&b 1")
    found.locator("header span").filter(has_text=",32,32").wait_for()
    whole = found.locator(".whole").bounding_box()
    found.locator(".whole").click(position={"x": whole["width"] / 2, "y": whole["height"] / 4})
    box = (160 - 16, 50 - 16, 32, 32)
    wait_for_window(found, box)
    for slug in ("_lr", "ours", "r-d", "_hr"):
        canvas = found.locator(f'.crop[data-slug="{slug}"] canvas')
        inner = (slice(2, -2), slice(2, -2))  # without the rounded corners
        np.testing.assert_allclose(shown(canvas, (32, 32))[inner], window(run, slug, "Set5/a&b 1", box)[inner], atol=1)
    found.locator(".whole").press("ArrowRight")
    wait_for_window(found, (box[0] + 4, *box[1:]))
    assert found.locator("figcaption").all_inner_texts() == [
        "whole",
        "LR",
        "Ours\nPSNR 30.00",
        "R & D\nPSNR 31.00",
        "HR",
    ]


def test_the_difference_map_is_the_difference(run, tmp_path, open_page):
    page = open_page(write(run, tmp_path / "out", EMBEDDED=0))
    found = card(page, "Set5/c")
    wait_for_window(found, (0, 0, 64, 48))  # small images are shown whole
    found.locator('.crop[data-slug="ours"]').click()
    page.select_option("#mode", "difference")
    page.locator("#gain").fill("3")
    page.get_by_text("|Ours − HR| × 3").wait_for()
    page.wait_for_timeout(100)
    box = (0, 0, 64, 48)
    expected = 3 * abs(window(run, "ours", "Set5/c", box) - window(run, "_hr", "Set5/c", box))
    seen = shown(page.locator("#stage canvas").first, (64, 48))
    np.testing.assert_allclose(seen[2:-2, 2:-2], np.minimum(expected, 255)[2:-2, 2:-2], atol=3)
    page.select_option("#mode", "slider")
    page.locator("#slider").fill("25")
    page.wait_for_timeout(100)
    seen = shown(page.locator("#stage"), (64, 48))
    for slug, columns in (("ours", slice(2, 14)), ("_hr", slice(18, 62))):
        np.testing.assert_allclose(seen[2:-2, columns], window(run, slug, "Set5/c", box)[2:-2, columns], atol=1)
    assert "figure" in page.inner_text("#command") and "--image Set5/c --window 0,0,64,48" in page.inner_text(
        "#command"
    )
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()


def listed(page):
    return [article.get_attribute("data-id") for article in page.locator("article").all()]


def test_images_are_sorted_filtered_and_paged(run, tmp_path, open_page):
    page = open_page(write(run, tmp_path / "out", PER_PAGE=2))
    assert page.locator("h1").inner_text() == "Noise & more"
    assert listed(page) == ["Set14/d", "Set5/c"]  # of c 25.5 - 20.3 levels, of e'f 1.4 - 0.3
    page.get_by_role("button", name="Next").click()
    assert (listed(page), page.inner_text("#page")) == (["Set14/e'f", "Set5/a&b 1"], "3–4 of 4")
    page.select_option("#of", label="Ours")
    assert listed(page) == ["Set14/e'f", "Set14/d"]
    page.select_option("#order", label="worst first")
    assert listed(page) == ["Set5/c", "Set5/a&b 1"]
    page.select_option("#against", label="R & D")
    page.select_option("#order", label="R & D is better")
    assert listed(page) == ["Set5/c", "Set5/a&b 1"]
    page.fill("#filter", "set14")
    assert listed(page) == ["Set14/d", "Set14/e'f"]
    page.select_option("#order", label="by name")
    page.fill("#filter", "nothing")
    assert (listed(page), page.inner_text("#page")) == ([], "no image has that name")


def test_a_page_alone_has_the_samples_and_says_what_is_missing(run, tmp_path, open_page):
    path = write(run, tmp_path / "out", EMBEDDED=0, SAMPLES=1)
    alone = tmp_path / "mailed" / "elsewhere" / "report.html"
    alone.parent.mkdir(parents=True)
    shutil.move(path, alone)
    page = open_page(alone)
    found = card(page, "Set14/d")
    first, second = (Image.open(run / "images" / slug / "Set14" / "d.png") for slug in ("ours", "r-d"))
    box = report.most_different([first, second])
    box = (box.x, box.y, box.width, box.height)
    wait_for_window(found, box)
    found.locator('.crop[data-slug="_lr"]').click()
    page.locator("#slider").fill("100")
    page.wait_for_timeout(100)
    seen = shown(page.locator("#stage"), (96, 96))
    np.testing.assert_allclose(seen[2:-2, 2:-2], window(run, "_lr", "Set14/d", box)[2:-2, 2:-2], atol=1)
    page.keyboard.press("Escape")
    card(page, "Set5/c").get_by_text("its pictures are not in").wait_for()


def test_a_run_without_hr_compares_its_methods(write_run, tmp_path, open_page):
    sizes = {"a": (160, 132), "b": (64, 64)}
    run = write_run(tmp_path / "run", sizes, {"niqe": {"Ours": [4.0, 5.0], "R & D": [3.0, 5.5]}}, hr=False)
    page = open_page(write(run, run))
    found = card(page, "a")
    found.locator('.crop[data-slug="ours"] canvas.sharp').wait_for()
    assert found.locator("figcaption").all_inner_texts() == ["whole", "LR", "Ours\nNIQE 4.000", "R & D\nNIQE 3.000"]
    assert "best" in found.locator("figcaption b").nth(1).get_attribute("class")
    found.locator('.crop[data-slug="ours"]').click()
    assert (page.inner_text("#left-name"), page.inner_text("#right-name")) == ("Ours", "R & D")


def test_the_window_that_is_shown_first_is_where_outputs_differ_most():
    flat = Image.new("RGB", (300, 200), (90, 90, 90))
    other = flat.copy()
    other.paste((130, 90, 90), (150, 60, 246, 156))
    assert report.most_different([flat, other, flat]).box == (150, 60, 246, 156)
    assert report.most_different([flat.crop((0, 0, 128, 100))] * 2).box == (0, 0, 128, 100)


def test_large_pictures_come_few_at_a_time(run, tmp_path):
    row = 320 * 200 * 4  # pixels of the largest image: LR, which counts as the others do, both methods and HR
    for budget, per_page in ((report.PAGE_PIXELS, 12), (row * 7 // 2, 3), (row // 2, 1)):
        assert f'"per_page": {per_page}, ' in write(run, tmp_path, PAGE_PIXELS=budget).read_text()


NOISY = """
import torch
class Noisy:
    name, scale, stochastic = "noisy", 4, True
    def upscale(self, lr, seeds):
        noise = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return torch.stack(noise)
def build(): return Noisy()
"""


@pytest.mark.parametrize("embedded", [False, True], ids=["files", "embedded"])
def test_the_viewer_shows_the_samples_of_an_input(
    finish_run, tmp_path_factory, tmp_path, open_page, one_thread, embedded
):
    """Embedded where they fit beside the other pictures, or else read from the run's folder."""
    world = tmp_path_factory.mktemp("noisy")
    (world / "mine.py").write_text(NOISY)
    mine = {"name": "R&D", "python": f"{world / 'mine.py'}:build", "samples": 3}
    run = finish_run(world, ["a", "b"], [{"kind": "bicubic"}, mine])
    others = [p for f in ("_lr", "_hr", "bicubic", "r-d", "r-d@mean") for p in (run / "images" / f).iterdir()]
    without_samples = sum(path.stat().st_size for path in others)
    html = write(run, tmp_path / "out", EMBEDDED=report.EMBEDDED if embedded else without_samples)
    assert html.read_text().count("data:image/png;base64,") == 2 * (7 if embedded else 5)
    page = open_page(html)
    found = card(page, "a")
    wait_for_window(found, (0, 0, 64, 64))
    found.locator('.crop[data-slug="r-d"]').click()
    page.wait_for_timeout(200)
    captions = page.locator("#drawn figcaption").all_inner_texts()
    assert captions == ["R&D", "R&D, sample 2", "R&D, sample 3"]
    page.get_by_label("Show R&D, sample 3").click()
    page.locator("#left-name", has_text="R&D, sample 3").wait_for()
    page.locator("#slider").fill("100")
    page.wait_for_timeout(200)
    inner = (slice(2, -2), slice(2, -2))
    seen = shown(page.locator("#stage canvas").first, (64, 64))
    np.testing.assert_allclose(seen[inner], window(run, "r-d@3", "a", (0, 0, 64, 64))[inner], atol=1)
    page.select_option("#left", "bicubic")
    page.wait_for_timeout(200)
    assert page.locator("#drawn").is_hidden()
