"""What every trial asks of the database, as statements that are built once and give plain rows.

A study's load is these. Statements built anew, and ORM objects that are tracked, take three times their CPU time.
"""

from sqlalchemy import and_, bindparam, func, insert, or_, select, update
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

# A :session (the token's hash) in the study :slug, held until the transaction ends.
SITTING = (
    select(Session.id, Session.state, Session.expires_at, Session.slot_id, Condition.exposure_ms, Study.config_toml)
    .add_columns(Session.comprehension_attempts, Session.understood_at)
    .join(Session.participant)
    .join(Participant.study)
    .join(Session.slot)
    .join(PlanSlot.condition)
    .where(Session.token_sha256 == bindparam("session"), Study.slug == bindparam("slug"))
    .with_for_update(of=Session)
)
# How many trials of the session :id have an answer, and how many there are.
PROGRESS = (
    select(func.count(Response.id), func.count(Trial.id))
    .select_from(Trial)
    .outerjoin(Trial.response)
    .where(Trial.session_id == bindparam("id"))
)
# The trials from the place :first up to :end in the :slot of the session :id.
WINDOW = (
    select(Trial.id, Trial.token, Trial.issued_at, Trial.showings, PlanTrial.idx, Stimulus.width, Stimulus.height)
    .add_columns(*(getattr(Trial, f"{place}_token") for place in PLACES))
    .join(Trial.planned)
    .join(PlanTrial.stimulus)
    .where(Trial.session_id == bindparam("id"), PlanTrial.slot_id == bindparam("slot"))
    .where(PlanTrial.idx >= bindparam("first"), PlanTrial.idx < bindparam("end"))
    .order_by(PlanTrial.idx)
)
# The trial :token of the session :id, if it was told of, with its answer, if it has one.
TRIAL = (
    select(Trial.id, Trial.attempt, Trial.started_at, Trial.showings, PlanTrial.idx, PlanTrial.real_side, Stimulus.kind)
    .add_columns(*(getattr(Trial, f"{place}_served_at") for place in PLACES), Response.body_sha256)
    .join(Trial.planned)
    .join(PlanTrial.stimulus)
    .outerjoin(Trial.response)
    .where(Trial.session_id == bindparam("id"), Trial.token == bindparam("token"), Trial.issued_at.is_not(None))
)
ISSUE = update(Trial).where(Trial.id == bindparam("trial")).values(issued_at=bindparam("now"))
SHOW = (
    update(Trial)
    .where(Trial.id == bindparam("trial"))
    .values(attempt=bindparam("uuid"), started_at=bindparam("now"), showings=Trial.showings + 1)
)
SERVE = {
    place: update(Trial).where(Trial.id == bindparam("trial")).values({f"{place}_served_at": bindparam("now")})
    for place in PLACES
}
TOUCH = update(Session).where(Session.id == bindparam("session")).values(expires_at=bindparam("until"))
TRIALS = insert(Trial)
EVENTS = insert(Event)
COUNT_EVENTS = select(func.count(Event.id)).where(Event.session_id == bindparam("id"))
KNOWN_EVENTS = select(Event.seq).where(
    Event.session_id == bindparam("id"), Event.seq.in_(bindparam("sent", expanding=True))
)
ANSWER = insert(Response).returning(Response.id)
FURTHER = insert(FurtherChoice)

_Before, _PlannedBefore, _AnswerBefore = aliased(Trial), aliased(PlanTrial), aliased(Response)
# What decides whether a :picture may be had, of its trial and of the one before; in a session that lives at :now.
NEAR = (
    select(Trial.id, PlanTrial.idx, PlanTrial.real_side, PlanTrial.stimulus_id)
    .add_columns(*(getattr(Trial, f"{place}_{what}") for place in PLACES for what in ("token", "served_at")))
    .add_columns(Response.received_at.label("answered_at"), _Before.started_at.label("started_before"))
    .add_columns(_AnswerBefore.id.label("answer_before"), Condition.exposure_ms)
    .add_columns(Study.config_toml, Study.id.label("study_id"), Study.frozen_at)
    .join(Trial.planned)
    .outerjoin(Trial.response)
    .join(Session, Trial.session_id == Session.id)
    .join(Session.participant)
    .join(Participant.study)
    .join(Session.slot)
    .join(PlanSlot.condition)
    .outerjoin(
        _PlannedBefore, and_(_PlannedBefore.slot_id == PlanTrial.slot_id, _PlannedBefore.idx == PlanTrial.idx - 1)
    )
    .outerjoin(_Before, and_(_Before.session_id == Session.id, _Before.plan_trial_id == _PlannedBefore.id))
    .outerjoin(_AnswerBefore, _AnswerBefore.trial_id == _Before.id)
    .where(or_(*(getattr(Trial, f"{place}_token") == bindparam("picture") for place in PLACES)))
    .where(Trial.issued_at.is_not(None), Study.slug == bindparam("slug"))
    .where(Session.token_sha256 == bindparam("session"), Session.holds_place(bindparam("now")))
)
_FILES = {"real": Stimulus.real_png, "other": Stimulus.other_png, "middle": Stimulus.middle_png}
FILE = {name: select(column).where(Stimulus.id == bindparam("stimulus")) for name, column in _FILES.items()}
