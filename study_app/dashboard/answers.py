"""The answers to a study that runs, as columns: what exclusions and rates of `analysis` look at, and no more.

50,000 answers are read in a tenth of the time of their export: a row of text a session comes from the database, texts
are categories, and no row is an object.
"""

from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import BigInteger, Integer, String, case, cast, func, literal, select
from sqlalchemy.orm import Session as Transaction

from study_app.models import Condition, FurtherChoice, PlanTrial, Response, Session, Stimulus, Study, Trial, of_study
from study_app.sessions import spec_of

CHOICES = ["left", "right", "tie", "skip"]
OTHER, REAL, TIE, SKIP = 1.0, 0.0, 0.5, np.nan  # what `picked_model` says
# Of an answer's number the powers of 2 by which its parts begin: timing_ok, real side, choice, criterion, stimulus.
REAL_SIDE, CHOICE, CRITERION, STIMULUS = 2, 4, 16, 4096


def read(db: Transaction, study: Study) -> pd.DataFrame:
    """Every answer with what exclusions and rates look at, of pairs of models one row a question.

    subject is the session's id, image_id a number, texts are categories. picked_model: 1 for the picture of `model`, 0
    for that on the real side, which is the rival's where models are compared; 1/2 for a tie, nan for a skipped pair.
    """
    spec = spec_of(study.config_toml)
    asked = sorted(criterion.id for criterion in spec.asked)
    answers = _answers(db, study, Response, literal(asked.index(spec.asked[0].id)))
    if len(asked) > 1:
        criterion = case({name: i for i, name in enumerate(asked)}, value=FurtherChoice.criterion)
        answers = pd.concat([answers, _answers(db, study, FurtherChoice, criterion)], ignore_index=True)
    of = _sessions(db, study).loc[answers["subject"]].reset_index(drop=True)
    shown = _stimuli(db, study).loc[answers["stimulus"]].reset_index(drop=True)
    named = _names(answers, asked) | (_sides(answers, shown) if spec.compare == "models" else {})
    return pd.concat([answers, of, shown], axis=1).assign(study=study.id, picked_model=_picked(answers), **named)


def _answers(db: Transaction, study: Study, of: type[Response | FurtherChoice], criterion: Any) -> pd.DataFrame:
    """Numbers. One row of text a session, since rows of Python objects take longer than everything else here."""
    choice = case({name: i for i, name in enumerate(CHOICES)}, value=of.choice)
    code = cast(PlanTrial.stimulus_id, BigInteger) * STIMULUS + criterion * CRITERION + choice * CHOICE
    code += _bit(PlanTrial.real_side == "right") * REAL_SIDE + _bit(Response.timing_ok)
    query = (
        select(Trial.session_id, func.count(), func.aggregate_strings(_joined(code, of.rt_ms), ","))
        .select_from(Session)
        .join(Trial, Trial.session_id == Session.id)
        .join(Response, Response.trial_id == Trial.id)
        .join(PlanTrial, PlanTrial.id == Trial.plan_trial_id)
        .group_by(Trial.session_id)
    )
    query = query if of is Response else query.join(FurtherChoice, FurtherChoice.response_id == Response.id)
    rows = db.execute(of_study(query, study)).all()
    values = np.fromstring(",".join(text for *_, text in rows), sep=",").reshape(-1, 2)
    codes = values[:, 0].astype(np.int64)
    return pd.DataFrame(
        {
            "subject": np.repeat([session for session, *_ in rows], [count for _, count, _ in rows]).astype(np.int64),
            "stimulus": codes // STIMULUS,
            "criterion": codes % STIMULUS // CRITERION,
            "choice_side": codes % CRITERION // CHOICE,
            "real_side": codes % CHOICE // REAL_SIDE,
            "timing_ok": codes % REAL_SIDE,
            "rt_ms": values[:, 1],
        }
    )


def _joined(code: Any, rt_ms: Any) -> Any:
    return cast(code, String) + "," + cast(rt_ms, String)


def _bit(condition: Any) -> Any:
    return cast(condition, Integer)


def _picked(answers: pd.DataFrame) -> np.ndarray:
    """By the numbers of `choice_side` and `real_side`."""
    by_choice = np.array([[REAL, OTHER], [OTHER, REAL], [TIE, TIE], [SKIP, SKIP]])
    return by_choice[answers["choice_side"], answers["real_side"]]


def _names(answers: pd.DataFrame, asked: list[str]) -> dict[str, pd.Categorical]:
    """Texts for numbers."""
    values = {"choice_side": CHOICES, "real_side": CHOICES, "criterion": asked}
    return {name: pd.Categorical.from_codes(answers[name], texts) for name, texts in values.items()}


def _sides(answers: pd.DataFrame, shown: pd.DataFrame) -> dict[str, pd.Categorical]:
    """Whose picture was where: the rival's on the real side."""
    names, is_left = shown["model"].cat.categories, answers["real_side"].to_numpy() == CHOICES.index("left")
    model, rival = (shown[column].cat.codes.to_numpy() for column in ("model", "rival"))
    sides = {"model_left": np.where(is_left, rival, model), "model_right": np.where(is_left, model, rival)}
    return {side: pd.Categorical.from_codes(codes, names) for side, codes in sides.items()}


def _sessions(db: Transaction, study: Study) -> pd.DataFrame:
    columns = (Session.id, Condition.label, Session.finished_at, Session.excluded_reason)
    found = db.execute(of_study(select(*columns).select_from(Session), study))
    rows = [(id_, label, int(finished is not None), reason) for id_, label, finished, reason in found]
    sessions = pd.DataFrame(rows, columns=["id", "condition", "finished", "excluded_reason"]).set_index("id")
    return sessions.astype({"condition": "category", "excluded_reason": "category"})


def _stimuli(db: Transaction, study: Study) -> pd.DataFrame:
    names = ["id", "kind", "model", "rival", "image_id", "group"]
    query = select(*(getattr(Stimulus, name) for name in names)).where(Stimulus.study_id == study.id)
    stimuli = pd.DataFrame(db.execute(query).all(), columns=names).set_index("id")
    stimuli["image_id"] = pd.factorize(stimuli["image_id"])[0]
    if (stimuli["group"] == "").all():
        stimuli = stimuli.drop(columns="group")
    models = pd.CategoricalDtype(sorted({*stimuli["model"], *stimuli["rival"]}))
    return stimuli.astype({"kind": "category", "model": models, "rival": models})
