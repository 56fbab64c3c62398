"""report.html: one page with the table, the intervals, the pictures and how they were made. It opens from disk."""

import base64
import io
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from sr3eval.benchmark.config import Row, RunConfig
from sr3eval.benchmark.figure import Window
from sr3eval.benchmark.layout import HR, LR, RunFolder
from sr3eval.benchmark.notes import legend, notes
from sr3eval.benchmark.scores import Scores
from sr3eval.benchmark.styles import Style
from sr3eval.benchmark.table import columns, groups, has_second_best, labelled, rows
from sr3eval.errors import number
from sr3eval.files import atomic_write

EMBEDDED = 6 << 20  # bytes of all pictures of a run, up to which the page holds them itself
SAMPLES = 12  # images whose windows the page holds in any case
SAMPLE_PIXELS = 10**8  # of pictures that are read to choose the samples' windows
PAGE_PIXELS = 6 * 10**7  # of pictures that a browser has to hold for one page of images
PER_PAGE = 12
WHOLE = 128  # pixels: images up to this side are shown whole, of others a window
SIDE = 96  # pixels: of that window
THUMBNAIL = 320  # pixels
PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C6D31",
    "#7F7F7F",
)  # after Okabe and Ito


def _escaped(text: str) -> str:
    return str(jinja2.filters.escape(text))


HTML = Style(
    escape=_escaped,
    name=_escaped,
    bold=lambda text: f"<strong>{text}</strong>",
    underline=lambda text: f"<u>{text}</u>",
    published=lambda method, source: f'<em>{method}</em> <span class="interval">{source}</span>',
    heading=lambda label: label,
    interval=lambda low, high: f' <span class="interval">[{low}, {high}]</span>',
    signed=lambda number: number,
    up='<span class="direction" title="higher is better">↑</span>',
    down='<span class="direction" title="lower is better">↓</span>',
    similar='<sup title="not significantly different from the best at 5 %">†</sup>',
    identical='<sup title="some images equal HR">‡</sup>',
    plus_minus=" ± ",
)


@dataclass(frozen=True)
class Dot:
    """One method in the interval plot of a metric; positions are percentages of the axis."""

    method: str
    color: str
    x: float
    low: float
    high: float
    text: str


def write(folder: Path, config: RunConfig, results: pd.DataFrame, scores: Scores, out: Path) -> None:
    """Write report.html of the finished run in `folder` into `out`.

    Where the run's pictures are few or small, the page holds them all. Otherwise it reads them from the run's folder,
    which must stay where it is beside the page, and holds only a window of those images on which the methods differ
    most: by the range of the first metric of images (see `_spread`), and where the outputs' brightness differs most.
    """
    run = RunFolder(folder)
    results = labelled(results)
    shown = columns(results)
    page = template("report.html").render(
        title=config.table.title or config.task.name,
        task=config.task.name,
        columns=[column.heading(HTML) for column in shown],
        groups=groups(shown) if any(column.dataset for column in shown) else [],
        rows=rows(results, shown, HTML),
        legend=legend(results) + (["Underlined: second best."] if has_second_best(results) else []),
        notes=notes(results),
        plots=_plots(results),
        pictures={} if config.generated else _pictures(run, config, results, scores.per_image, out),
        sheets=_sheets(run, config) if config.generated else [],
        paired=_paired(results),
        config=run.config.read_text(encoding="utf-8"),
        environment=json.loads(run.environment.read_text(encoding="utf-8")),
        number=number,
    )
    atomic_write(out / "report.html", page.encode())


def template(name: str) -> jinja2.Template:
    """A page of the folder templates."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name)


def _plots(results: pd.DataFrame) -> list[tuple[str, list[Dot]]]:
    """(heading, dots) of every column of the table, of our own methods."""
    own = results[results["source"] == ""]
    colors = dict(zip(dict.fromkeys(own["method"]), itertools.cycle(PALETTE), strict=False))
    made = []
    for column in columns(own):
        part = own[(own["dataset"] == column.dataset) & (own["metric"] == column.metric)]
        unit = f", {column.unit}" if column.unit else ""
        made.append((f"{column.dataset} {column.label}{unit}".lstrip(), _dots(part, colors)))
    return made


def _dots(results: pd.DataFrame, colors: Mapping[str, str]) -> list[Dot]:
    ends = results[["ci_low", "ci_high", "value"]].to_numpy(float)
    finite = ends[np.isfinite(ends)]
    if not len(finite):
        return []
    low, high = float(finite.min()), float(finite.max())
    margin = 0.06 * (high - low) or 1.0

    def position(value: float) -> float:
        return float(np.clip(100 * (value - low + margin) / (high - low + 2 * margin), 0, 100))

    dots = []
    for row in results[np.isfinite(results["value"])].itertuples():
        interval = [row.value if np.isnan(end) else end for end in (row.ci_low, row.ci_high)]
        text = f"{row.value:.{row.decimals}f} [{interval[0]:.{row.decimals}f}, {interval[1]:.{row.decimals}f}]"
        color = colors[str(row.method)]
        dots.append(
            Dot(str(row.method), color, position(row.value), position(interval[0]), position(interval[1]), text)
        )
    return dots


def _paired(results: pd.DataFrame) -> list[dict[str, Any]]:
    """The paired comparisons with each column's best method, as text."""
    lines = []
    for row in results[results["p_value"].notna()].itertuples():
        same = results[(results["metric"] == row.metric) & (results["dataset"] == row.dataset)]
        best = same[same["best"]]["method"].iloc[0]
        ends = f"[{row.delta_ci_low:+.{row.decimals}f}, {row.delta_ci_high:+.{row.decimals}f}]"
        p = "< 0.001" if row.p_value < 0.001 else f"{row.p_value:.3f}"
        lines.append(
            {
                "metric": f"{row.dataset} {row.label}".lstrip(),
                "method": row.method,
                "best": best,
                "delta": f"{row.delta_to_best:+.{row.decimals}f} {ends}",
                "p": p if row.testable else "too few groups",
            }
        )
    return lines


def _sheets(run: RunFolder, config: RunConfig) -> list[tuple[str, str]]:
    """(name, picture) of every method of generated images."""
    return [(m.name, _data(_read(run.sheet(m.slug)), "JPEG", quality=90)) for m in config.method]


def _pictures(
    run: RunFolder, config: RunConfig, results: pd.DataFrame, per_image: pd.DataFrame, out: Path
) -> dict[str, Any]:
    """What the page's script knows of the run: images, methods, scores of images, and the pictures that it holds."""
    methods = [row for row in config.rows if row.is_picture]
    ids = run.ids(LR)
    folders = [(LR, "LR"), *((method.slug, method.name) for method in methods)]
    folders += [(HR, "HR")] if (run.images / HR).is_dir() else []
    slugs = [slug for slug, _ in folders]
    drawn = {m.slug: m.method.sample_folders(m.slug) for m in methods if m.of == "first" and m.method.samples > 1}
    others = [folder for of_method in drawn.values() for folder in of_method[1:]]
    metrics = _metrics(results, per_image, methods, ids)
    samples = _samples(metrics, ids)
    held = _fit(run, slugs, ids)
    embedded = [*slugs, *others] if held and _fit(run, [*slugs, *others], ids) else slugs if held else []
    return {
        "base": quote(Path(os.path.relpath(run.images, out)).as_posix()),
        "folders": [{"slug": slug, "name": name} for slug, name in folders],
        "ids": ids,
        "metrics": metrics,
        "held": {slug: {i: _as_it_is(run.image(slug, i)) for i in ids} for slug in embedded},
        "drawn": drawn,
        "samples": _sampled(run, slugs, samples, crops=not held),
        "per_page": _per_page(run, folders[-1][0], ids, len(folders)),
        "whole": WHOLE,
        "side": SIDE,
    }


def _fit(run: RunFolder, folders: Sequence[str], ids: Sequence[str]) -> bool:
    """Whether the page holds all pictures of some folders; no more of them are looked at than it can hold."""
    total = 0
    for image_id, folder in itertools.product(ids, folders):
        total += run.image(folder, image_id).stat().st_size
        if total > EMBEDDED:
            return False
    return True


def _per_page(run: RunFolder, folder: str, ids: Sequence[str], count: int) -> int:
    """How many images a page shows: the browser must hold all pictures of them."""
    largest = max(_pixels(run.image(folder, image_id)) for image_id in ids[:: max(1, len(ids) // 50)])
    return max(1, min(PER_PAGE, PAGE_PIXELS // (largest * count)))


def _pixels(path: Path) -> int:
    with Image.open(path) as image:
        return image.width * image.height


def _metrics(
    results: pd.DataFrame, per_image: pd.DataFrame, methods: Sequence[Row], ids: Sequence[str]
) -> list[dict[str, Any]]:
    """The metrics of images, each with its scores by method and the range of these, in the order of the ids."""
    made = []
    for metric in dict.fromkeys(per_image["metric"]):
        of = results[results["metric"] == metric].iloc[0]
        scores = per_image[per_image["metric"] == metric].pivot(index="image_id", columns="method", values="value")
        values = scores.reindex(index=ids, columns=[method.name for method in methods]).to_numpy(float)
        values = values.round(of["decimals"] + 2)
        about = {"label": of["label"], "decimals": int(of["decimals"]), "higher": bool(of["higher_is_better"])}
        made.append(
            about | {"scores": values.T.tolist(), "spread": _spread(values, in_decibels=of["unit"] == "dB").tolist()}
        )
    return made


def _spread(values: NDArray[np.float64], in_decibels: bool) -> NDArray[np.float64]:
    """The range over the methods of [images, methods]; of decibels that of the errors, for 50 and 44 look alike."""
    errors = 10 ** (-values / 20) if in_decibels else values
    return np.round(np.ptp(errors, axis=1), 6)


def _samples(metrics: Sequence[Mapping[str, Any]], ids: Sequence[str]) -> list[str]:
    """The images on which the methods differ most in the first metric; without one, the first."""
    if not metrics:
        return list(ids[:SAMPLES])
    spread = np.nan_to_num(np.array(metrics[0]["spread"]), nan=-1)
    return [ids[index] for index in np.argsort(-spread, kind="stable")[:SAMPLES]]


def _sampled(run: RunFolder, slugs: Sequence[str], ids: Sequence[str], crops: bool) -> dict[str, Any]:
    """By image, as many as can be read quickly: its size, the window that is shown first, and if `crops` that too."""
    made: dict[str, Any] = {}
    read = 0
    for image_id in ids:
        read += len(slugs) * _pixels(run.image(slugs[-1], image_id))
        if made and read > SAMPLE_PIXELS:
            break
        pictures = {slug: _read(run.image(slug, image_id)) for slug in slugs}
        whole = pictures[slugs[-1]]
        window = most_different([pictures[slug] for slug in slugs if slug not in (LR, HR)])
        made[image_id] = {"size": whole.size, "window": [window.x, window.y, window.width, window.height]}
        if crops:
            made[image_id]["crops"] = {slug: _crop(p, window, whole.size) for slug, p in pictures.items()}
            made[image_id]["thumbnail"] = _thumbnail(whole if HR in pictures else pictures[LR])
    return made


def _read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def most_different(pictures: Sequence[Image.Image]) -> Window:
    """The square window in which the range of the pictures' brightness is greatest; the whole of small pictures."""
    width, height = pictures[0].size
    if max(width, height) <= WHOLE:
        return Window(0, 0, width, height)
    grey = np.stack([np.asarray(picture.convert("L"), np.float32) for picture in pictures])
    side = min(SIDE, width, height)
    sums = _box_sums(np.ptp(grey, axis=0), side)
    y, x = np.unravel_index(int(sums.argmax()), sums.shape)
    return Window(int(x), int(y), side, side)


def _box_sums(values: NDArray[np.float32], side: int) -> NDArray[np.float64]:
    """Sums over every side x side window of [H, W]: [H - side + 1, W - side + 1]."""
    total = np.pad(values.cumsum(0, np.float64).cumsum(1), ((1, 0), (1, 0)))
    return total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]


def _crop(picture: Image.Image, window: Window, size: tuple[int, int]) -> str:
    """The window as PNG; of LR its pixels, enlarged."""
    box = window.scaled(size, picture.size)
    return _data(picture.resize((window.width, window.height), Image.Resampling.NEAREST, box=box), "PNG")


def _thumbnail(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), reducing_gap=2)
    return _data(small, "JPEG", quality=85)


def _data(picture: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _as_it_is(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
