"""The answers as tidy tables: one row a response, and one row a session."""

import csv
import dataclasses
import datetime
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as Transaction

from study_app.admin import the_study
from study_app.bodies import Choice
from study_app.database import Database
from study_app.models import (
    Answer,
    Condition,
    Participant,
    PlanSlot,
    PlanTrial,
    Response,
    Session,
    Stimulus,
    Study,
    Trial,
)
from study_app.service import spec_of
from study_app.spec import Spec

# What the browser measured, as far as it has no name of its own in the table.
MEASURED = [
    field.name
    for field in dataclasses.fields(Choice)
    if field.name not in ("client_uuid", "choice", "exposure_ms", "rt_ms")
]
RESPONSES = [
    "study",
    "task",
    "condition",
    "model",
    "exposure_ms",
    "subject",
    "image_id",
    "kind",
    "trial_index",
    "real_side",
    "choice_side",
    "picked_model",
    "rt_ms",
    "exposure_actual_ms",
    "timing_ok",
    "finished",
    "excluded_reason",
    "received_at",
    "reexposed",
    *MEASURED,
    "served_at",
    "start_received_at",
    "against",
    "group",
    "noise",
]
SESSIONS = [
    "study",
    "condition",
    "subject",
    "state",
    "started_at",
    "finished_at",
    "trials_answered",
    "excluded_reason",
    "deleted_at",
    "consent_version",
    "consent_sha256",
    "config_sha256",
    "viewport_w",
    "viewport_h",
    "dpr",
    "frame_ms",
    "touch",
]


def responses_csv(database: Database, slug: str) -> str:
    """responses.csv of a study: columns of RESPONSES, rows in the order of subjects and trials."""
    with database.read() as db:
        study = the_study(db, slug)
        spec = spec_of(study.config_toml)
        return to_csv(RESPONSES, (_response(study.slug, spec, *row) for row in db.execute(_responses(study))))


def sessions_csv(database: Database, slug: str) -> str:
    """One row a session, unfinished and deleted ones too, with the answers to the questions at the end."""
    with database.read() as db:
        study = the_study(db, slug)
        questions = [question.id for question in spec_of(study.config_toml).questions]
        columns = SESSIONS + [f"answer_{question}" for question in questions]
        return to_csv(columns, _sessions(db, study, questions))


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A CSV table whose text cells no spreadsheet takes for a formula."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


def _responses(study: Study) -> Any:
    return (
        select(Condition, Participant.code, Session, PlanTrial, Stimulus, Trial, Response)
        .select_from(Response)
        .join(Response.trial)
        .join(Trial.planned)
        .join(PlanTrial.stimulus)
        .join(Session, Trial.session_id == Session.id)
        .join(Session.participant)
        .join(Session.slot)
        .join(PlanSlot.condition)
        .where(Condition.study_id == study.id)
        .order_by(Session.id, PlanTrial.idx)
    )


def _response(
    slug: str,
    spec: Spec,
    condition: Condition,
    subject: str,
    session: Session,
    planned: PlanTrial,
    stimulus: Stimulus,
    trial: Trial,
    response: Response,
) -> list[Any]:
    # Rates against a model are no fool rates: another name keeps analyses from pooling them.
    model = f"{stimulus.model} against {spec.against}" if spec.against and stimulus.model else stimulus.model
    return [
        *(slug, spec.task, condition.label, model, condition.exposure_ms, subject, stimulus.image_id),
        *(stimulus.kind, planned.idx, planned.real_side, response.choice, response.choice != planned.real_side),
        *(response.rt_ms, response.exposure_ms, response.timing_ok),
        *(session.finished_at is not None, session.excluded_reason, utc(response.received_at), trial.showings > 1),
        *(getattr(response, name) for name in MEASURED),
        *(utc(_served(trial)), utc(trial.started_at), spec.against, stimulus.group, spec.noise),
    ]


def _sessions(db: Transaction, study: Study, questions: Sequence[str]) -> Iterator[list[Any]]:
    answered = select(func.count(Response.id)).join(Response.trial).where(Trial.session_id == Session.id)
    query = (
        select(Condition.label, Participant, Session, answered.correlate(Session).scalar_subquery())
        .select_from(Session)
        .join(Session.participant)
        .join(Session.slot)
        .join(PlanSlot.condition)
        .where(Condition.study_id == study.id)
        .order_by(Session.id)
    )
    for label, participant, session, count in db.execute(query):
        answers = dict(db.execute(select(Answer.question_id, Answer.text).where(Answer.session_id == session.id)).all())
        yield [
            *(study.slug, label, participant.code, session.state, utc(session.started_at), utc(session.finished_at)),
            *(count, session.excluded_reason, utc(participant.deleted_at), participant.consent_version),
            *(participant.consent_sha256, study.config_sha256, session.viewport_w, session.viewport_h),
            *(session.dpr, session.frame_ms, session.touch),
            *(answers.get(question) for question in questions),
        ]


def _served(trial: Trial) -> int | None:
    """When the first of the pictures was sent for the first time."""
    times = (trial.left_served_at, trial.right_served_at, trial.middle_served_at)
    return min((time for time in times if time is not None), default=None)


def utc(ms: int | None) -> str:
    """ISO 8601 with milliseconds, or nothing."""
    if ms is None:
        return ""
    moment = datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
