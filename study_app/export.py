"""The answers as tidy tables: one row a response, or a choice between two models, a session, an event.

`analysis.codebook` says what the columns mean.
"""

import csv
import dataclasses
import datetime
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from sqlalchemy import func, select
from sqlalchemy.orm import Session as Transaction
from sqlalchemy.orm import contains_eager

from analysis import codebook
from sr3eval.errors import UserError
from sr3eval.packs import pixels_sha256
from study_app.admin import Admin, the_study
from study_app.bodies import Choice
from study_app.database import Database
from study_app.endings import code_of
from study_app.models import (
    Answer,
    Condition,
    Event,
    FurtherChoice,
    Participant,
    PlanTrial,
    Response,
    Session,
    Stimulus,
    Study,
    Trial,
    of_study,
)
from study_app.sessions import spec_of
from study_app.spec import Spec

# What the browser measured, as far as it has no name of its own in the table.
MEASURED = [
    field.name
    for field in dataclasses.fields(Choice)
    if field.name not in ("client_uuid", "choice", "exposure_ms", "rt_ms", "further")
]


def responses_csv(database: Database, slug: str) -> str:
    """responses.csv of a study: columns of codebook.RESPONSES, rows in the order of subjects and trials."""
    with database.read() as db:
        study = the_study(db, slug)
        spec = spec_of(study.config_toml)
        shown = _shown(db, study)
        found = db.execute(_responses(study))
        rows = ([*_response(study.slug, spec, *row), shown[row.Stimulus.id]] for row in found)
        return to_csv(codebook.RESPONSES, rows)


def choices_csv(database: Database, slug: str) -> str:
    """choices.csv of a study of pairs of models: columns of codebook.CHOICES, a row a question about a pair."""
    with database.read() as db:
        study = the_study(db, slug)
        spec, further = spec_of(study.config_toml), _further(db, study)
        rows = [row for found in db.execute(_responses(study)) for row in _choices(study.slug, spec, further, *found)]
        return to_csv(codebook.CHOICES, rows)


def answers_table(database: Database, slug: str) -> str:
    """Which of TABLES holds the study's answers: "responses", or "choices" of pairs of models."""
    with database.read() as db:
        return spec_of(the_study(db, slug).config_toml).answers_table


def sessions_csv(database: Database, slug: str) -> str:
    """One row a session, unfinished and deleted ones too, with the answers to the questions at the end."""
    with database.read() as db:
        study = the_study(db, slug)
        spec = spec_of(study.config_toml)
        columns = [*codebook.SESSIONS, *(f"answer_{question.id}" for question in spec.questions)]
        return to_csv(columns, _sessions(db, study, spec))


def events_csv(database: Database, slug: str) -> str:
    """What happened in the browsers beside the trials, by session and in its order."""
    with database.read() as db:
        study = the_study(db, slug)
        query = (
            select(Condition.label, Participant.code, Event)
            .select_from(Event)
            .join(Session, Event.session_id == Session.id)
            .join(Session.participant)
            .order_by(Session.id, Event.seq)
        )
        rows = (
            [study.slug, label, subject, event.seq, event.type, event.t_client, utc(event.t_server), event.detail]
            for label, subject, event in db.execute(of_study(query, study))
        )
        return to_csv(codebook.EVENTS, rows)


def codebook_json(database: Database, slug: str) -> str:
    """What every column of the study's tables means, as JSON Schema."""
    with database.read() as db:
        study = the_study(db, slug)
        spec = spec_of(study.config_toml)
        questions = [(question.id, question.text) for question in spec.questions]
        return codebook.as_json(codebook.schema(study.slug, questions, spec.answers_table))


TABLES: Mapping[str, Callable[[Database, str], str]] = {
    "responses": responses_csv,
    "choices": choices_csv,
    "sessions": sessions_csv,
    "events": events_csv,
    "codebook": codebook_json,
}


def export(admin: Admin, slug: str, table: str) -> str:
    """One of TABLES as text; that it was taken is in the audit log."""
    exported = TABLES[table](admin.database, slug)
    admin.note("export", slug, table)
    return exported


def to_csv(columns: Iterable[str], rows: Iterable[Sequence[Any]]) -> str:
    """A CSV table whose text cells no spreadsheet takes for a formula."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def to_parquet(text: str, table: str) -> bytes:
    """One of TABLES but the codebook, given as CSV, as Parquet with the codebook's types.

    Raises UserError where pyarrow is not installed, and for the codebook, which is no table.
    """
    if table == "codebook":
        raise UserError("--codebook is not a table; name it .json")
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    for name, about in codebook.TABLES[table].items():
        if "string" not in about["type"]:
            numbers = pd.to_numeric(frame[name])
            frame[name] = numbers.astype("Int64") if "integer" in about["type"] else numbers
    try:
        return frame.to_parquet(index=False)
    except ImportError:
        raise UserError("Parquet needs pyarrow: pip install 'sr3eval[analysis]'") from None


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


def _responses(study: Study) -> Any:
    query = (
        select(Condition, Participant.code, Session, PlanTrial, Stimulus, Trial, Response)
        .select_from(Response)
        .join(Response.trial)
        .join(Trial.planned)
        .join(PlanTrial.stimulus)
        .join(Session, Trial.session_id == Session.id)
        .join(Session.participant)
        .order_by(Session.id, PlanTrial.idx)
    )
    return of_study(query, study)


def _shown(db: Transaction, study: Study) -> dict[int, str]:
    """`shown_sha256` of every stimulus."""
    pictures = db.execute(select(Stimulus.id, Stimulus.other_png).where(Stimulus.study_id == study.id))
    return {stimulus: pixels_sha256(png) for stimulus, png in pictures.yield_per(10)}


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
    """What codebook.RESPONSES has of it, but for the last: its picture's checksum."""
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


def _further(db: Transaction, study: Study) -> dict[int, list[FurtherChoice]]:
    """The answers to further criteria, by response, in the order in which they were given."""
    query = select(FurtherChoice).join(Response).join(Response.trial).join(Session, Trial.session_id == Session.id)
    query = query.join(Session.participant).where(Participant.study_id == study.id).order_by(FurtherChoice.id)
    found: dict[int, list[FurtherChoice]] = {}
    for choice in db.scalars(query):
        found.setdefault(choice.response_id, []).append(choice)
    return found


def _choices(
    slug: str,
    spec: Spec,
    further: Mapping[int, Sequence[FurtherChoice]],
    condition: Condition,
    subject: str,
    session: Session,
    planned: PlanTrial,
    stimulus: Stimulus,
    trial: Trial,
    response: Response,
) -> Iterator[list[Any]]:
    row = _response(slug, spec, condition, subject, session, planned, stimulus, trial, response)
    common = dict(zip(codebook.RESPONSES, row, strict=False))
    shown = (stimulus.rival, stimulus.model) if planned.real_side == "left" else (stimulus.model, stimulus.rival)
    left, right = shown if stimulus.model else ("", "")
    real_side = "" if stimulus.model else planned.real_side
    first = (spec.asked[0].id, response.choice, response.rt_ms)
    for criterion, choice, rt_ms in [first, *((f.criterion, f.choice, f.rt_ms) for f in further.get(response.id, ()))]:
        own = {"criterion": criterion, "model_left": left, "model_right": right, "choice_side": choice, "rt_ms": rt_ms}
        own |= {"chosen": {"left": left, "right": right}.get(choice, ""), "real_side": real_side}
        yield [(common | own)[column] for column in codebook.CHOICES]


def _sessions(db: Transaction, study: Study, spec: Spec) -> Iterator[list[Any]]:
    answered = select(func.count(Response.id)).join(Response.trial).where(Trial.session_id == Session.id)
    query = (
        select(Condition.label, Participant, Session, answered.correlate(Session).scalar_subquery())
        .select_from(Session)
        .join(Session.participant)
        .options(contains_eager(Session.participant))
        .order_by(Session.id)
    )
    told: dict[int, dict[str, str]] = defaultdict(dict)
    asked = select(Answer.session_id, Answer.question_id, Answer.text).select_from(Session)
    for of, question, text in db.execute(of_study(asked.join(Answer, Answer.session_id == Session.id), study)):
        told[of][question] = text
    for label, participant, session, count in db.execute(of_study(query, study)):
        yield [
            *(study.slug, label, participant.code, session.state, utc(session.started_at), utc(session.finished_at)),
            *(count, session.excluded_reason, utc(participant.deleted_at), participant.consent_version),
            *(participant.consent_sha256, study.config_sha256),
            *(session.comprehension_attempts, utc(session.understood_at), session.viewport_w, session.viewport_h),
            *(session.dpr, session.frame_ms, session.touch, session.px_per_mm, code_of(spec, session)),
            *(told[session.id].get(question.id) for question in spec.questions),
        ]


def _served(trial: Trial) -> int | None:
    """When the pictures were sent; they came one by one in earlier versions."""
    times = (trial.left_served_at, trial.right_served_at, trial.middle_served_at)
    return min((time for time in times if time is not None), default=None)


def utc(ms: int | None) -> str:
    """ISO 8601 with milliseconds, or nothing."""
    if ms is None:
        return ""
    moment = datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
