"""report.html: one self-contained page with the table, the intervals, the pictures and how they were made."""

import base64
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.layout import HR, LR, REFERENCE, RunFolder
from sr3eval.benchmark.scores import Scores
from sr3eval.benchmark.table import Style, cells, notes, printed
from sr3eval.data import choose, find_images
from sr3eval.files import atomic_write
from sr3eval.images import header_size

GRID_ROWS = 14
EXTREMES = 3  # best and worst images of each method
PICTURE_BYTES = 6 << 20  # of PNG in the grid, and again in best and worst; large images get fewer
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

HTML = Style(
    lambda text: jinja2.filters.escape(text).__str__(),
    lambda text: f"<strong>{text}</strong>",
    lambda a, b: f' <span class="interval">{a} – {b}</span>',
    '<span class="direction" title="higher is better">↑</span>',
    '<span class="direction" title="lower is better">↓</span>',
    '<sup title="not significantly different from the best at 5 %">†</sup>',
    '<sup title="some images equal HR">‡</sup>',
    " ± ",
)


@dataclass(frozen=True)
class Picture:
    """An image in the page, with a caption and what it is of."""

    source: str
    caption: str
    detail: str = ""


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
    """Write report.html of the finished run in `folder` into `out`."""
    run = RunFolder(folder)
    config = replace(config, method=tuple(method for method in config.method if method.kind != REFERENCE))
    header, rows = cells(results, HTML)
    colors = dict(zip(dict.fromkeys(results["method"]), itertools.cycle(PALETTE), strict=False))
    ids = sorted(find_images(run.images / HR))
    shown = _affordable(run, config, choose(ids, GRID_ROWS))
    page = _template().render(
        task=config.task,
        header=header,
        rows=rows,
        notes=notes(results),
        plots=[(printed(metric)[0], _dots(part, colors)) for metric, part in results.groupby("metric", sort=False)],
        grid=[(image_id, _row(run, config, image_id)) for image_id in shown],
        pixelated=header_size(run.image(HR, shown[0]))[0] <= 256,
        extremes=_extremes(run, config, results, scores.per_image),
        paired=_paired(results),
        config=run.config.read_text(encoding="utf-8"),
        environment=json.loads(run.environment.read_text(encoding="utf-8")),
    )
    atomic_write(out / "report.html", page.encode())


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "report.html"
    )


def _source(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _row(run: RunFolder, config: RunConfig, image_id: str) -> list[Picture]:
    folders = [(LR, "LR"), *((method.slug, method.name) for method in config.method), (HR, "HR")]
    return [Picture(_source(run.image(folder, image_id)), caption) for folder, caption in folders]


def _affordable(run: RunFolder, config: RunConfig, ids: Sequence[str]) -> list[str]:
    """As many of the ids as the budget allows, at least one."""
    size = run.image(HR, ids[0]).stat().st_size * (len(config.method) + 1)
    return list(ids[: max(1, PICTURE_BYTES // max(size, 1))])


def _affordable_extremes(run: RunFolder, config: RunConfig, image_id: str) -> int:
    """How many best and worst images of each method the budget allows; maybe none."""
    each = 3 * 2 * len(config.method)  # LR, output and HR, of the best and of the worst
    return PICTURE_BYTES // (each * run.image(HR, image_id).stat().st_size)


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
        decimals = printed(str(row.metric))[1]
        interval = [row.value if np.isnan(end) else end for end in (row.ci_low, row.ci_high)]
        text = f"{row.value:.{decimals}f} [{interval[0]:.{decimals}f}, {interval[1]:.{decimals}f}]"
        color = colors[str(row.method)]
        dots.append(
            Dot(str(row.method), color, position(row.value), position(interval[0]), position(interval[1]), text)
        )
    return dots


def _extremes(
    run: RunFolder, config: RunConfig, results: pd.DataFrame, per_image: pd.DataFrame
) -> list[tuple[str, str, list[Picture], list[Picture]]]:
    """By method: its best and its worst images in the first metric of images, each as LR, output, HR side by side."""
    if per_image.empty:
        return []
    metric = str(per_image["metric"].iloc[0])
    higher = bool(results.loc[results["metric"] == metric, "higher_is_better"].iloc[0])
    name, decimals = printed(metric)
    found = []
    for method in config.method:
        scores = per_image[(per_image["method"] == method.name) & (per_image["metric"] == metric)]
        ranked = scores[np.isfinite(scores["value"])].sort_values(["value", "image_id"], ascending=[not higher, True])
        count = min(EXTREMES, len(ranked) // 2, _affordable_extremes(run, config, str(scores["image_id"].iloc[0])))

        def pictures(part: pd.DataFrame, slug: str = method.slug) -> list[Picture]:
            made = []
            for row in part.itertuples():
                for folder, caption in ((LR, "LR"), (slug, f"{name} {row.value:.{decimals}f}"), (HR, "HR")):
                    made.append(Picture(_source(run.image(folder, str(row.image_id))), caption, str(row.image_id)))
            return made

        if count:
            found.append((method.name, name, pictures(ranked.head(count)), pictures(ranked.tail(count).iloc[::-1])))
    return found


def _paired(results: pd.DataFrame) -> list[dict[str, Any]]:
    """The paired comparisons with each metric's best method, as text."""
    lines = []
    for row in results[results["p_value"].notna()].itertuples():
        name, decimals = printed(str(row.metric))
        best = results[(results["metric"] == row.metric) & results["best"]]["method"].iloc[0]
        delta = (
            f"{row.delta_to_best:+.{decimals}f} [{row.delta_ci_low:+.{decimals}f}, {row.delta_ci_high:+.{decimals}f}]"
        )
        p = "< 0.001" if row.p_value < 0.001 else f"{row.p_value:.3f}"
        p = p if row.testable else "too few groups"
        lines.append({"metric": name, "method": row.method, "best": best, "delta": delta, "p": p})
    return lines
