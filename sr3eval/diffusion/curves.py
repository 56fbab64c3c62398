"""curves.html: the learning curves of a training run as one page, which opens from disk and fetches nothing."""

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2

from sr3eval.files import atomic_write

Line = Mapping[str, Any]
POINTS = 500  # of a curve, at most
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 260, 58, 12, 10, 28  # of a panel and its margins, in its own units
BLUE, ORANGE = "var(--blue)", "var(--orange)"
BY_LEVEL = "loss_sqrt_gamma_"


@dataclass(frozen=True)
class Curve:
    """A name of metrics.jsonl; peaks: what stands for many points is their largest, else their mean."""

    name: str
    label: str
    color: str = BLUE
    peaks: bool = False


@dataclass(frozen=True)
class Panel:
    title: str
    curves: tuple[Curve, ...]
    log: bool = False


LOSS = Panel("Loss", (Curve("loss", "training"), Curve("validation_loss", "validation, EMA weights", ORANGE)), log=True)
OTHERS = (
    Panel("PSNR in dB", (Curve("psnr", "validation"),)),
    Panel("Consistency, MSE × 10⁵", (Curve("consistency", "validation"),), log=True),
    Panel("Colour error in levels of 255", (Curve("color_error", "validation"),), log=True),
    Panel(
        "Gradient norm before clipping",
        (Curve("gradient_norm_max", "largest", ORANGE, peaks=True), Curve("gradient_norm", "mean")),
        log=True,
    ),
    Panel("Learning rate", (Curve("rate", "rate"),)),
)


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` over the units `begin` to `end` of a panel."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.begin + (self.end - self.begin) * (at - low) / (high - low), 2)

    def ticks(self) -> list[float]:
        """Round values in range: decades, or their 1, 2 and 5, on a logarithmic axis where at least two fit."""
        if self.log:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1,), (1, 2, 5)):
                found = [d * 10.0**e for e in exponents for d in digits if self.low <= d * 10.0**e <= self.high]
                if len(found) > 1:
                    return found
        rough = (self.high - self.low) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(d * power for d in (1, 2, 5, 10) if d * power >= rough)
        return [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def write(path: Path, title: str, facts: Sequence[str], lines: Sequence[Line]) -> None:
    """Write the page of the lines of metrics.jsonl; curves that they do not hold are left out."""
    drawn = [drawing for panel in panels(lines) if (drawing := draw(panel, lines))]
    step = max((line["step"] for line in lines), default=0)
    atomic_write(path, _template().render(title=title, facts=facts, step=step, panels=drawn).encode())


def panels(lines: Sequence[Line]) -> Iterator[Panel]:
    """The loss, the loss by noise level where there is one, and what else is logged."""
    yield LOSS
    levels = sorted({name for line in lines for name in line if name.startswith(BY_LEVEL)})
    colors = [f"oklch(var(--lightness) .14 {30 + 270 * i / 9:.0f})" for i in range(10)]
    curves = (Curve(n, n.removeprefix(BY_LEVEL), colors[round(10 * float(n.removeprefix(BY_LEVEL)))]) for n in levels)
    yield Panel("Training loss by noise level (√γ from)", tuple(curves), log=True)
    yield from OTHERS


def draw(panel: Panel, lines: Sequence[Line]) -> dict[str, Any] | None:
    """What the template needs of a panel; None where nothing was logged for it."""
    points = {curve: found for curve in panel.curves if (found := _points(curve, lines))}
    if not points:
        return None
    values = [value for found in points.values() for _, value in found]
    log = panel.log and min(values) > 0
    y = Axis(*limits(values, log), HEIGHT - BOTTOM, TOP, log)
    x = Axis(0, max(line["step"] for line in lines), LEFT, WIDTH - RIGHT)
    return {
        "title": panel.title,
        "x_ticks": [(x(tick), f"{tick:,.0f}") for tick in x.ticks()],
        "y_ticks": [(y(tick), f"{tick:.4g}") for tick in y.ticks()],
        "curves": [_drawn(curve, found, x, y) for curve, found in points.items()],
    }


def _drawn(curve: Curve, points: Sequence[tuple[int, float]], x: Axis, y: Axis) -> dict[str, Any]:
    places = [(x(step), y(value)) for step, value in points]
    data = [(place[0], step, f"{value:.4g}") for place, (step, value) in zip(places, points, strict=True)]
    return {
        "label": curve.label,
        "color": curve.color,
        "places": places,
        "last": f"{points[-1][1]:.4g}",
        "data": json.dumps(data),
    }


def _points(curve: Curve, lines: Sequence[Line]) -> list[tuple[int, float]]:
    found = [(line["step"], line[curve.name]) for line in lines if curve.name in line]
    size = math.ceil(len(found) / POINTS) or 1
    reduce: Callable[[Sequence[float]], float] = max if curve.peaks else fmean
    parts = [found[i : i + size] for i in range(0, len(found), size)]
    return [(part[-1][0], reduce([value for _, value in part])) for part in parts]


def limits(values: Sequence[float], log: bool) -> tuple[float, float]:
    """Limits a little outside the values."""
    low, high = min(values), max(values)
    if log:
        room = (high / low) ** 0.05 if high > low else 1.1
        return low / room, high * room
    room = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


@functools.cache
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("sr3eval.diffusion")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": RIGHT,
        "top": TOP,
        "bottom": BOTTOM,
    }
    return environment.get_template("curves.html")
