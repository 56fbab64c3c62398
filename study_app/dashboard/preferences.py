"""Win rates of a study of pairs of models that runs, by the very rules and intervals of `analysis`."""

import io
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.exclusions import exclude
from analysis.preference import win_rates
from analysis.tables import validate_choices
from study_app.dashboard.progress import Subject
from study_app.dashboard.rates import failed_rules
from study_app.database import Database
from study_app.export import choices_csv

BY = ["condition", "criterion"]


def live(database: Database, slug: str) -> list[dict[str, Any]]:
    """Rows of win_rates by condition and criterion, as the analysis of an export made now would have them."""
    choices = _choices(database, slug)
    return [] if choices.empty else win_rates(exclude(choices)[0], by=BY).to_dict("records")


def flags(database: Database, slug: str, subjects: Sequence[Subject]) -> dict[int, list[str]]:
    """By session, the rules that it fails so far; of one that is not finished, "incomplete" is not said."""
    choices = _choices(database, slug)
    if choices.empty:
        return {}
    sessions = {one.code: one.session for one in subjects}
    return {sessions[code]: rules for code, rules in failed_rules(exclude(choices)[1]).items()}


def _choices(database: Database, slug: str) -> pd.DataFrame:
    table = pd.read_csv(io.StringIO(choices_csv(database, slug)), dtype=str, keep_default_na=False)
    return table if table.empty else validate_choices(table)
