"""Pairs of models for the next subject by the choices so far: `adaptive = true` of a study."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, Select, exists, func, select, update

from analysis.adaptive import allot, shares
from study_app.models import PlanTrial, Response, Session, Stimulus, Trial
from study_app.spec import Matchup, Spec


def choose_pairs(db: Connection, study: Row[Any], spec: Spec, slot: int) -> None:
    """Lay down anew which pairs a place shows, when it is taken for the first time and there are choices.

    `study` is a row of `statements.STUDY`, `slot` the place's id.
    Images, their order and the sides stay as planned; the pairs are then balanced no longer.
    """
    models = study.models.split("\n")
    matchups = spec.matchups(models)
    wins = _wins(db, study.id, models)
    if not wins.any() or db.scalar(select(exists().where(Session.slot_id == slot))):
        return
    pairs = [(models.index(model), models.index(rival)) for model, rival in matchups]
    rng = np.random.default_rng(random.Random(f"{study.salt}/{spec.seed}/{slot}/{wins.sum()}").getrandbits(64))
    tests = db.execute(_tests(slot)).all()
    stimuli = _stimuli(db, study.id)
    for (trial, number), pair in zip(tests, allot(shares(wins, pairs), len(tests), rng), strict=True):
        db.execute(update(PlanTrial).where(PlanTrial.id == trial).values(stimulus_id=stimuli[number, matchups[pair]]))


def _wins(db: Connection, study: int, models: Sequence[str]) -> np.ndarray:
    """[models, models]: how often the row's model was chosen over the column's by the first criterion; ties half."""
    query = (
        select(Stimulus.model, Stimulus.rival, PlanTrial.real_side, Response.choice, func.count())
        .select_from(Response)
        .join(Response.trial)
        .join(Trial.planned)
        .join(PlanTrial.stimulus)
        .join(Session, Trial.session_id == Session.id)
        .where(Stimulus.study_id == study, Stimulus.kind == "test", Session.excluded_reason == "")
        .group_by(Stimulus.model, Stimulus.rival, PlanTrial.real_side, Response.choice)
    )
    place = {model: i for i, model in enumerate(models)}
    wins = np.zeros((len(models), len(models)))
    for model, rival, rival_side, choice, count in db.execute(query):
        got = {"tie": 0.5, rival_side: 0.0}.get(choice, 1.0)
        if choice != "skip":
            wins[place[model], place[rival]] += got * count
            wins[place[rival], place[model]] += (1 - got) * count
    return wins


def _tests(slot: int) -> Select[int, int]:
    query = select(PlanTrial.id, Stimulus.number).join(PlanTrial.stimulus).where(PlanTrial.slot_id == slot)
    return query.where(Stimulus.kind == "test").order_by(PlanTrial.idx)


def _stimuli(db: Connection, study: int) -> dict[tuple[int, Matchup], int]:
    """The test stimuli by image and pair."""
    tests = select(Stimulus.number, Stimulus.model, Stimulus.rival, Stimulus.id)
    tests = tests.where(Stimulus.study_id == study, Stimulus.kind == "test")
    return {(number, Matchup(model, rival)): id_ for number, model, rival, id_ in db.execute(tests)}
