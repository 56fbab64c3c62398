"""What every trial asks of the database, as statements that are built once and give plain rows.

A study's load is these. Statements built anew, and ORM objects that are tracked, take three times their CPU time.
"""

from typing import Any

from sqlalchemy import Select, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.orm import aliased

from study_app.models import (
    Condition,
    Event,
    FurtherChoice,
    Participant,
    PlanSlot,
    PlanTrial,
    Response,
    Session,
    Stimulus,
    Study,
    Trial,
)

PLACES = ("left", "right", "middle")
SERVED_AT = {place: f"{place}_served_at" for place in PLACES}

# A :session (the token's hash) in the study :slug.
SITTING = (
    select(Session.id, Session.state, Session.expires_at, Session.slot_id, Condition.exposure_ms, Study.config_toml)
    .add_columns(Session.comprehension_attempts, Session.understood_at)
    .join(Session.participant)
    .join(Participant.study)
    .join(Session.slot)
    .join(PlanSlot.condition)
    .where(Session.token_sha256 == bindparam("session"), Study.slug == bindparam("slug"))
)
HELD = SITTING.with_for_update(of=Session)  # until the transaction ends
# How many trials of the session :id have an answer, and how many there are.
PROGRESS = (
    select(func.count(Response.id), func.count(Trial.id))
    .select_from(Trial)
    .outerjoin(Trial.response)
    .where(Trial.session_id == bindparam("id"))
)
# The trials from the place :first up to :end in the :slot of the session :id.
WINDOW = (
    select(Trial.token, Trial.showings, PlanTrial.idx, Stimulus.width, Stimulus.height)
    .add_columns(*(getattr(Trial, f"{place}_token") for place in PLACES))
    .join(Trial.planned)
    .join(PlanTrial.stimulus)
    .where(Trial.session_id == bindparam("id"), PlanTrial.slot_id == bindparam("slot"))
    .where(PlanTrial.idx >= bindparam("first"), PlanTrial.idx < bindparam("end"))
    .order_by(PlanTrial.idx)
)

_Before, _PlannedBefore, _AnswerBefore = aliased(Trial), aliased(PlanTrial), aliased(Response)


def _with_before(query: Select[Any]) -> Select[Any]:
    """Of trials: also when the one before in the same session started, and which answer that has."""
    planned = and_(_PlannedBefore.slot_id == PlanTrial.slot_id, _PlannedBefore.idx == PlanTrial.idx - 1)
    before = and_(_Before.session_id == Trial.session_id, _Before.plan_trial_id == _PlannedBefore.id)
    return (
        query.add_columns(_Before.started_at.label("started_before"), _AnswerBefore.id.label("answer_before"))
        .outerjoin(_PlannedBefore, planned)
        .outerjoin(_Before, before)
        .outerjoin(_AnswerBefore, _AnswerBefore.trial_id == _Before.id)
    )


# The trial :token of the session :id, with its answer, if it has one.
TRIAL = _with_before(
    select(Trial.id, Trial.attempt, Trial.started_at, Trial.showings, PlanTrial.idx, PlanTrial.real_side, Stimulus.kind)
    .add_columns(*(getattr(Trial, f"{place}_token") for place in PLACES), Response.body_sha256)
    .join(Trial.planned)
    .join(PlanTrial.stimulus)
    .outerjoin(Trial.response)
).where(Trial.session_id == bindparam("id"), Trial.token == bindparam("token"))
# The pictures, which were served at :left, :right and :middle, are shown; the first time they were served stays.
SHOW = (
    update(Trial)
    .where(Trial.id == bindparam("trial"))
    .values(attempt=bindparam("uuid"), started_at=bindparam("now"), showings=Trial.showings + 1)
    .values(
        {
            f"{place}_served_at": func.coalesce(getattr(Trial, f"{place}_served_at"), bindparam(place))
            for place in PLACES
        }
    )
)
TOUCH = update(Session).where(Session.id == bindparam("session")).values(expires_at=bindparam("until"))
TRIALS = insert(Trial)
EVENTS = insert(Event)
COUNT_EVENTS = select(func.count(Event.id)).where(Event.session_id == bindparam("id"))
KNOWN_EVENTS = select(Event.seq).where(
    Event.session_id == bindparam("id"), Event.seq.in_(bindparam("sent", expanding=True))
)
ANSWER = insert(Response).returning(Response.id)
FURTHER = insert(FurtherChoice)

# What decides whether a :picture may be had, of its trial and of the one before; in a session that lives at :now.
NEAR = _with_before(
    select(PlanTrial.idx, PlanTrial.real_side, PlanTrial.stimulus_id)
    .add_columns(*(getattr(Trial, f"{place}_token") for place in PLACES))
    .add_columns(Response.received_at.label("answered_at"), Condition.exposure_ms)
    .add_columns(Study.config_toml, Study.id.label("study_id"), Study.frozen_at)
    .join(Trial.planned)
    .outerjoin(Trial.response)
    .join(Session, Trial.session_id == Session.id)
    .join(Session.participant)
    .join(Participant.study)
    .join(Session.slot)
    .join(PlanSlot.condition)
).where(
    or_(*(getattr(Trial, f"{place}_token") == bindparam("picture") for place in PLACES)),
    *(Study.slug == bindparam("slug"), Session.token_sha256 == bindparam("session")),
    Session.holds_place(bindparam("now")),
)
_FILES = {"real": Stimulus.real_png, "other": Stimulus.other_png, "middle": Stimulus.middle_png}
FILE = {name: select(column).where(Stimulus.id == bindparam("stimulus")) for name, column in _FILES.items()}
