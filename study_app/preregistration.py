"""A preregistration of a study, filled from its settings in the order of aspredicted.org's questions, as Markdown."""

from collections.abc import Sequence
from importlib import metadata

from analysis import power
from analysis.comparisons import FEW_ANSWERS
from analysis.exclusions import Rules
from analysis.fool_rate import MARGIN
from sr3eval.config import to_toml
from study_app.documents import filled
from study_app.spec import Spec

TEMPLATE = "preregistration.md"


def preregistration(spec: Spec, models: Sequence[str]) -> str:
    """The document; what only the researcher knows is marked [FILL IN].

    models: those of the study. Raises UserError for models that it cannot show in exact balance.
    """
    spec.check_models(models)
    return filled(
        TEMPLATE,
        spec=spec,
        models=models,
        matchups=[(a, b or "the real picture") for a, b in spec.matchups(models)],
        conditions=_conditions(spec, models),
        times=" or ".join(f"{ms / 1000:g} s" for ms in spec.exposures_ms),
        trials=_trials(spec, models),
        planned=_planned(spec, models),
        spread=power.Spread(),
        rules=Rules(),
        margin=MARGIN,
        few=FEW_ANSWERS,
        settings=to_toml(spec),
        version=metadata.version("sr3eval"),
    )


def _conditions(spec: Spec, models: Sequence[str]) -> int:
    """How many groups of subjects there are."""
    return len(spec.exposures_ms) * (1 if spec.mode == "within" else len(spec.matchups(models)))


def _trials(spec: Spec, models: Sequence[str]) -> int:
    """Test trials of a subject for one model, or pair of models."""
    return spec.per_subject // (len(spec.matchups(models)) if spec.mode == "within" else 1)


def _planned(spec: Spec, models: Sequence[str]) -> list[tuple[str, float, float]]:
    """By test: what it is of, the difference that it finds with 80 % power, and its power to show equivalence."""
    tests: list[tuple[str, power.Comparison]] = [("one rate against 50 %", "chance")]
    if spec.compare == "real" and len(models) > 1:
        tests.append(("two models", spec.mode))
    rows = []
    for name, comparison in tests:
        row = power.power(spec.target, spec.images, _trials(spec, models), comparison=comparison).iloc[0]
        rows.append((name, float(row["detectable"]), float(row["power_equivalence"])))
    return rows
