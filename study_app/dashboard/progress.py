"""How far studies are, who their subjects are, and what was done: a statement or two each."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as Transaction
from sqlalchemy.orm import contains_eager

from study_app.endings import code_of
from study_app.models import (
    Audit,
    Condition,
    Identity,
    Participant,
    Response,
    Session,
    Study,
    Trial,
    of_study,
)
from study_app.sessions import spec_of
from study_app.spec import Spec
from study_app.tally import Tally, tallies


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


def overview(db: Transaction, now: int) -> list[dict[str, Any]]:
    """Every study, the newest first, with how many count."""
    found: dict[str, list[Tally]] = defaultdict(list)
    for tally in tallies(db, now):
        found[tally.study].append(tally)
    return [
        {
            "slug": study.slug,
            "title": spec_of(study.config_toml).title,
            "state": study.state,
            "counted": sum(tally.counted for tally in found[study.slug]),
            "target": sum(tally.target for tally in found[study.slug]),
        }
        for study in db.scalars(select(Study).order_by(Study.id.desc()))
    ]
