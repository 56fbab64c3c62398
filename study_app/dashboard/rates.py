"""Fool rates, or win rates of pairs of models, of a study that runs, by the very rules and intervals of `analysis`."""

from typing import Any

import pandas as pd
from sqlalchemy.orm import Session as Transaction

from analysis.exclusions import NOBODY, exclude
from analysis.fool_rate import fool_rates
from analysis.preference import win_rates
from study_app.dashboard import answers
from study_app.models import Study
from study_app.sessions import spec_of


def live(db: Transaction, study: Study) -> list[dict[str, Any]]:
    """Rows of fool_rates by condition and model, or of win_rates by condition and criterion.

    As the analysis of an export made now would have them: pre-registered exclusions first, then two-way clustered
    intervals.
    """
    kept = counted(db, study)
    if spec_of(study.config_toml).compare == "models":
        return win_rates(kept, by=["condition", "criterion"]).to_dict("records")
    return fool_rates(kept, by=["condition", "model"]).to_dict("records")


def counted(db: Transaction, study: Study) -> pd.DataFrame:
    """The answers to test trials that count."""
    return exclude(answers.read(db, study))[0]


def flags(db: Transaction, study: Study) -> dict[int, list[str]]:
    """By session, the rules that it fails so far; of one that is not finished, "incomplete" is not said."""
    log = exclude(answers.read(db, study))[1]
    failed = log[(log["rule"] != "incomplete") & (log["subject"] != NOBODY)]
    return failed.groupby("subject", sort=False)["rule"].agg(list).to_dict()
