"""Your own metric: python = "file.py:build", with the options of your build."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sr3eval.config import check_call, defaults, from_dict
from sr3eval.errors import UserError
from sr3eval.metrics import Batch, Convention, Metric, PerImage
from sr3eval.sources import made_of
from sr3eval.user_code import check_modules, function_of, one_line


@dataclass(frozen=True)
class FunctionConvention:
    """What a config says of a metric that is a plain function; see `Convention`."""

    higher_is_better: bool
    label: str = ""
    unit: str = ""
    decimals: int = 3
    needs_hr: bool = True
    needs_lr: bool = False
    needs_labels: bool = False
    needs_samples: bool = False


def build(*, python: str, name: str | None = None, **options: Any) -> Metric:
    """Call somebody's own builder, which returns score(batch), one number for each image of a `Batch`, or a `Metric`.

    Args:
        python: "file.py:build".
        name: the metric's id; by default that of a `Metric`, or the file's.
        **options: of that builder; beside a plain function higher_is_better, and as need be label, unit, decimals,
            needs_hr, needs_lr, needs_labels and needs_samples, which a `Metric` declares itself.
    """
    path, builder = function_of(python)
    called_by = name or path.stem
    check_modules(path)
    given = {field.name: options.pop(field.name) for field in fields(FunctionConvention) if field.name in options}
    called = check_call(builder, options, called_by)
    with one_line(path):
        made = builder(**called)
    everything = defaults(builder) | options
    version = _version(path, everything)
    if isinstance(made, Metric):
        if given:
            raise UserError(f'metric "{called_by}": {python} declares {next(iter(given))} itself: leave it out')
        own = made.convention
        made.convention = replace(own, name=name or own.name, version=f"{own.version}, {version}")
        if isinstance(made, PerImage):
            made.score = _watched(made.score, path)
        return made
    if not callable(made):
        what = f"returns {type(made).__name__}; wanted a function of a Batch, or a Metric"
        raise UserError(f"{path}: {builder.__name__}() {what}")
    declared = from_dict(FunctionConvention, given, f'metric "{called_by}"')
    settings = ", ".join([f"{path.name}:{builder.__name__}", *(f"{key} = {everything[key]}" for key in everything)])
    about = {"name": called_by, "label": declared.label or called_by, "settings": settings, "version": version}
    return PerImage(Convention(**asdict(declared) | about), _watched(made, path))


def _watched(score: Callable[[Batch], Any], file: Path) -> Callable[[Batch], Tensor]:
    """The score, with its mistakes told in one line, and refused unless there is one number an image."""

    @torch.inference_mode()
    def watched(batch: Batch) -> Tensor:
        with one_line(file):
            scores = torch.as_tensor(score(batch), dtype=torch.float64).cpu()
        if scores.shape != (len(batch.ids),):
            raise UserError(
                f"{file}: scores of the shape {tuple(scores.shape)} for {len(batch.ids)} images; expected [N]"
            )
        return scores

    return watched


def _version(file: Path, options: Mapping[str, Any]) -> str:
    """A hash of the code, and of the files that it and the options name."""
    return f"code {hashlib.sha256(repr(sorted(made_of(file, options).items())).encode()).hexdigest()[:8]}"
