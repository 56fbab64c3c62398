"""Fool rates of a study that runs, by the very rules and intervals of `analysis`."""

from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Integer, String, cast, func, select
from sqlalchemy.orm import Session as Transaction

from analysis.exclusions import NOBODY, exclude
from analysis.fool_rate import fool_rates
from study_app.models import Condition, PlanTrial, Response, Session, Stimulus, Study, Trial, of_study

RATES = ["condition", "model", "n", "k", "subjects", "images", "fool_rate", "ci_low", "ci_high", "note"]


def live(db: Transaction, study: Study) -> list[dict[str, Any]]:
    """Rows of fool_rates by condition and model, as the analysis of an export made now would have them.

    Pre-registered exclusions first, then two-way clustered intervals.
    """
    kept = counted(db, study)
    return fool_rates(kept, by=["condition", "model"])[RATES].to_dict("records")


def counted(db: Transaction, study: Study) -> pd.DataFrame:
    """The responses to test trials that count."""
    return _excluded(db, study)[0]


def flags(db: Transaction, study: Study) -> dict[int, list[str]]:
    """By session, the rules that it fails so far; of one that is not finished, "incomplete" is not said."""
    return failed_rules(_excluded(db, study)[1])


def failed_rules(log: pd.DataFrame) -> dict[Any, list[str]]:
    """The rules that each subject fails, by a log of exclusions; who is not finished yet may still be."""
    failed = log[(log["rule"] != "incomplete") & (log["subject"] != NOBODY)]
    return failed.groupby("subject", sort=False)["rule"].agg(list).to_dict()


def _excluded(db: Transaction, study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    return exclude(responses(db, study))


def responses(db: Transaction, study: Study) -> pd.DataFrame:
    """Every response with what exclusions and fool rates look at.

    subject is the session's id, image_id a number, and texts are categories: with 50,000 rows that is what takes time.
    """
    answers = _answers(db, study)
    of = _sessions(db, study).loc[answers["subject"]].reset_index(drop=True)
    shown = _stimuli(db, study).loc[answers["stimulus"]].reset_index(drop=True)
    sides = {
        "choice_side": _side(answers["left"]),
        "real_side": _side(answers["left"] ^ answers["picked_model"]),
    }
    return pd.concat([answers, of, shown], axis=1).assign(study=study.id, **sides)


def _side(left: pd.Series) -> pd.Categorical:
    return pd.Categorical.from_codes(left, ["right", "left"])


def _answers(db: Transaction, study: Study) -> pd.DataFrame:
    """One row of text a session, since 50,000 rows of Python objects take longer than everything else here together."""
    flags = 4 * _bit(Response.choice != PlanTrial.real_side) + 2 * _bit(Response.choice == "left")
    code = PlanTrial.stimulus_id * 8 + flags + _bit(Response.timing_ok)
    pair = cast(code, String) + "," + cast(Response.rt_ms, String)
    query = (
        select(Trial.session_id, func.count(), func.aggregate_strings(pair, ","))
        .select_from(Session)
        .join(Trial, Trial.session_id == Session.id)
        .join(Response, Response.trial_id == Trial.id)
        .join(PlanTrial, PlanTrial.id == Trial.plan_trial_id)
        .group_by(Trial.session_id)
    )
    rows = db.execute(of_study(query, study)).all()
    values = np.fromstring(",".join(text for *_, text in rows), sep=",").reshape(-1, 2)
    codes = values[:, 0].astype(np.int64)
    subject = np.repeat([session for session, *_ in rows], [count for _, count, _ in rows])
    bits = {"picked_model": codes >> 2 & 1, "left": codes >> 1 & 1, "timing_ok": codes & 1}
    return pd.DataFrame({"subject": subject, "stimulus": codes >> 3, **bits, "rt_ms": values[:, 1]})


def _bit(condition: Any) -> Any:
    return cast(condition, Integer)


def _sessions(db: Transaction, study: Study) -> pd.DataFrame:
    columns = (Session.id, Condition.label, Session.finished_at, Session.excluded_reason)
    found = db.execute(of_study(select(*columns).select_from(Session), study))
    rows = [(id_, label, int(finished is not None), reason) for id_, label, finished, reason in found]
    sessions = pd.DataFrame(rows, columns=["id", "condition", "finished", "excluded_reason"]).set_index("id")
    return sessions.astype({"condition": "category", "excluded_reason": "category"})


def _stimuli(db: Transaction, study: Study) -> pd.DataFrame:
    names = ["id", "kind", "model", "image_id", "group"]
    query = select(*(getattr(Stimulus, name) for name in names)).where(Stimulus.study_id == study.id)
    stimuli = pd.DataFrame(db.execute(query).all(), columns=names).set_index("id")
    stimuli["image_id"] = pd.factorize(stimuli["image_id"])[0]
    if (stimuli["group"] == "").all():
        stimuli = stimuli.drop(columns="group")
    return stimuli.astype({"kind": "category", "model": "category"})
