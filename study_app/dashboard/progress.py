"""How far a study is, of conditions and of subjects: one aggregated statement each."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session as Transaction
from sqlalchemy.orm import contains_eager

from study_app.endings import code_of
from study_app.models import (
    Audit,
    Condition,
    Identity,
    Participant,
    PlanSlot,
    Response,
    Session,
    Study,
    Trial,
    of_study,
)
from study_app.sessions import spec_of
from study_app.spec import Spec


@dataclass(frozen=True)
class Progress:
    """A condition, in sessions; `counted` are finished and not excluded."""

    condition: str
    target: int
    counted: int
    excluded: int
    active: int
    left: int  # withdrawn, or gone without an end
    deleted: int


@dataclass(frozen=True)
class Subject:
    """A session as the researcher sees it; times in ms."""

    session: int
    code: str
    condition: str
    state: str
    started_at: int
    finished_at: int | None
    completion_code: str
    excluded_reason: str
    deleted_at: int | None
    answered: int
    source: str  # who recruited; with `person` and `submission`, "" where nobody did or it was forgotten
    person: str
    submission: str


def by_condition(db: Transaction, study: Study, now: int) -> list[Progress]:
    """Every condition in its order. A session that is open beyond its time has left."""
    left = func.sum(case((Session.expires_at <= now, 1), else_=0))
    query = (
        select(PlanSlot.condition_id, Session.state, Session.excluded_reason, func.count(), left)
        .select_from(Session)
        .group_by(PlanSlot.condition_id, Session.state, Session.excluded_reason)
    )
    counts: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for condition, state, reason, count, overdue in db.execute(of_study(query, study)):
        gone = overdue if state == "active" else 0
        counts[condition]["left"] += gone
        counts[condition][_standing(state, bool(reason))] += count - gone
    target = spec_of(study.config_toml).target
    return [_progress(condition.label, target, counts[condition.id]) for condition in study.conditions]


def _progress(label: str, target: int, counts: dict[str, int]) -> Progress:
    return Progress(label, target, *(counts[name] for name in ("counted", "excluded", "active", "left", "deleted")))


def _standing(state: str, has_reason: bool) -> str:
    if state == "finished":
        return "excluded" if has_reason else "counted"
    return {"expired": "left", "withdrew": "left"}.get(state, state)


def subjects(db: Transaction, study: Study) -> list[Subject]:
    """Every session, the newest first."""
    answers = (
        select(Trial.session_id, func.count().label("answered"))
        .join(Response, Response.trial_id == Trial.id)
        .group_by(Trial.session_id)
        .subquery()
    )
    query = (
        select(
            *(Session, Participant, Condition.label, func.coalesce(answers.c.answered, 0)),
            *(func.coalesce(column, "") for column in (Identity.source, Identity.person, Identity.submission)),
        )
        .select_from(Session)
        .join(Session.participant)
        .options(contains_eager(Session.participant))
        .outerjoin(Identity, Identity.participant_id == Participant.id)
        .outerjoin(answers, answers.c.session_id == Session.id)
        .order_by(Session.id.desc())
    )
    spec = spec_of(study.config_toml)
    return [_subject(spec, *row) for row in db.execute(of_study(query, study))]


def _subject(spec: Spec, session: Session, participant: Participant, condition: str, *counted: Any) -> Subject:
    return Subject(
        *(session.id, participant.code, condition, session.state, session.started_at, session.finished_at),
        *(code_of(spec, session), session.excluded_reason, participant.deleted_at, *counted),
    )


def median_minutes(of: Sequence[Subject]) -> float | None:
    """How long those took who finished."""
    took = [(one.finished_at - one.started_at) / 60_000 for one in of if one.finished_at is not None]
    return statistics.median(took) if took else None


def audit(db: Transaction, study: str | None = None, limit: int = 500) -> list[Audit]:
    """The newest entries of the log, of one study or of all."""
    query = select(Audit).order_by(Audit.id.desc()).limit(limit)
    return list(db.scalars(query if study is None else query.where(Audit.study == study)))


def overview(db: Transaction) -> list[dict[str, Any]]:
    """Every study with how many have finished."""
    finished = (
        select(Condition.study_id, func.count().label("finished"))
        .select_from(Session)
        .join(Session.slot)
        .join(PlanSlot.condition)
        .where(Session.state == "finished")
        .group_by(Condition.study_id)
        .subquery()
    )
    query = select(Study, func.coalesce(finished.c.finished, 0)).outerjoin(finished, finished.c.study_id == Study.id)
    return [
        {
            "slug": study.slug,
            "title": spec_of(study.config_toml).title,
            "state": study.state,
            "finished": count,
            "target": spec_of(study.config_toml).target * len(study.conditions),
        }
        for study, count in db.execute(query.order_by(Study.id.desc()))
    ]
