"""What every start and every trial asks of the database, as statements that are built once and give plain rows.

A study's load is these. Statements built anew, and ORM objects that are tracked, take three times their CPU time.
"""

from typing import Any

from sqlalchemy import Select, and_, bindparam, func, insert, select, text, update
from sqlalchemy.orm import aliased

from study_app.models import (
    ACTIVE,
    EXPIRED,
    LIVE_STATES,
    Condition,
    Event,
    FurtherChoice,
    Identity,
    Participant,
    PlanSlot,
    PlanTrial,
    Response,
    Revocation,
    Session,
    Stimulus,
    Study,
    Trial,
)

PLACES = ("left", "right", "middle")
SUBMISSION = ("project", "submission", "submit_to")  # of an identity what may change

STUDY = select(Study.id, Study.state, Study.config_toml, Study.models, Study.frozen_at, Study.salt).where(
    Study.slug == bindparam("slug")
)
HELD_STUDY = STUDY.with_for_update(key_share=True)  # until the transaction ends
# The greatest width and height of the :study's pictures.
SIZE = select(func.coalesce(func.max(Stimulus.width), 0), func.coalesce(func.max(Stimulus.height), 0)).where(
    Stimulus.study_id == bindparam("study")
)
_OF_PEOPLE = (
    select(Session.id, Session.state, Session.participant_id, Participant.identity_hash)
    .join(Session.participant)
    .join(Participant.study)
    .where(Study.slug == bindparam("slug"))
)
# Whose the :session (the token's hash) in the study :slug is, and who of the :people (by hash) has one in it.
BY_TOKEN = _OF_PEOPLE.where(Session.token_sha256 == bindparam("session"))
BY_PERSON = _OF_PEOPLE.where(Participant.identity_hash.in_(bindparam("people", expanding=True)))
# Whether invitations of these :people into the study :slug were revoked.
REVOKED = select(
    select(Revocation.id)
    .join(Study, Revocation.study_id == Study.id)
    .where(Study.slug == bindparam("slug"), Revocation.identity_hash.in_(bindparam("people", expanding=True)))
    .exists()
)
HAND_OVER = update(Session).where(Session.id == bindparam("session")).values(token_sha256=bindparam("token"))
RESUBMIT = update(Identity).where(Identity.participant_id == bindparam("participant"))  # with what is SUBMISSION
# Of the :study, whoever has done nothing for the longest time of those whose time was over :now. One that another
# transaction holds is just coming back.
IDLE = (
    select(Session.id, Session.slot_id)
    .join(Session.participant)
    .where(text(f"session.{ACTIVE}"), Session.expires_at <= bindparam("now"))  # as the index says it
    .where(Participant.study_id + 0 == bindparam("study"))  # + 0: not by the index of all who ever came
    .order_by(Session.expires_at, Session.id)
    .limit(1)
)
HELD_IDLE = IDLE.with_for_update(of=Session, skip_locked=True)  # until the transaction ends
# What was answered stays in the export, but does not count beside the answers of whoever gets the place.
EXPIRE = update(Session).where(Session.id == bindparam("session")).values(state="expired", excluded_reason=EXPIRED)
# The :study's free place with the lowest number, so that conditions fill evenly: of an index one entry a condition.
_LOWEST = (
    select(PlanSlot.id)
    .where(PlanSlot.condition_id == Condition.id, text("plan_slot.is_free"))  # as the index says it
    .order_by(PlanSlot.number)
    .limit(1)
    .correlate(Condition)
    .scalar_subquery()
)
FREE_SLOT = (
    select(PlanSlot.id)
    .join(Condition, PlanSlot.id == _LOWEST)
    .where(Condition.study_id == bindparam("study"))
    .order_by(PlanSlot.number, Condition.id)
    .limit(1)
)
TAKE = update(PlanSlot).where(PlanSlot.id == bindparam("slot")).values(is_free=False)
CONSENT = insert(Participant).returning(Participant.id)
SEAT = insert(Session).returning(Session.id)
IDENTIFY = insert(Identity)
PLANNED = select(PlanTrial.id).where(PlanTrial.slot_id == bindparam("slot"))
TRIALS = insert(Trial)
# A :session (the token's hash) in the study :slug.
SITTING = (
    select(Session.id, Session.state, Session.slot_id, Condition.exposure_ms, Study.config_toml)
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
    .add_columns(Response.body_sha256)
    .join(Trial.planned)
    .join(PlanTrial.stimulus)
    .outerjoin(Trial.response)
).where(Trial.session_id == bindparam("id"), Trial.token == bindparam("token"))
# The pictures, which were :served together, are shown; what the first start said stays.
SHOW = (
    update(Trial)
    .where(Trial.id == bindparam("trial"))
    .values(attempt=bindparam("uuid"), started_at=bindparam("now"), showings=Trial.showings + 1)
    .values(
        {column: func.coalesce(column, bindparam("served")) for column in (Trial.left_served_at, Trial.right_served_at)}
    )
)
TOUCH = update(Session).where(Session.id == bindparam("session")).values(expires_at=bindparam("until"))
EVENTS = insert(Event)
COUNT_EVENTS = select(func.count(Event.id)).where(Event.session_id == bindparam("id"))
KNOWN_EVENTS = select(Event.seq).where(
    Event.session_id == bindparam("id"), Event.seq.in_(bindparam("sent", expanding=True))
)
ANSWER = insert(Response).returning(Response.id)
FURTHER = insert(FurtherChoice)

# What decides whether the pictures of a :trial (its token) may be had, of it and of the one before; in a session that
# has its place.
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
    *(Trial.token == bindparam("trial"), Study.slug == bindparam("slug")),
    *(Session.token_sha256 == bindparam("session"), Session.state.in_(LIVE_STATES)),
)
_FILES = {"real": Stimulus.real_png, "other": Stimulus.other_png, "middle": Stimulus.middle_png}
FILE = {name: select(column).where(Stimulus.id == bindparam("stimulus")) for name, column in _FILES.items()}
