"""The tables. What must hold is a constraint here: the service may be wrong, the data cannot be.

Times are UTC in milliseconds. Some facts have no column because a query gives them: a trial is answered when it has a
response, and what was picked follows from the real side.
"""

from typing import Annotated, Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
    true,
)
from sqlalchemy.ext.hybrid import hybrid_method
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

ENDED = ("finished", "excluded", "withdrew")  # states of sessions that shall answer nothing more
LIVE_STATES = ("active", "finished")
EXPIRED = "expired"  # a state, and the excluded_reason of whose place is free for somebody else
SCREEN = ("viewport_w", "viewport_h", "dpr", "css_w", "css_h", "fullscreen")  # of a response, what tells of a device
ACTIVE = "state = 'active'"
LIVE = "state IN ('active', 'finished')"  # of sessions that hold their place
CHOICE_CHECK = "choice IN ('left', 'right', 'tie', 'skip')"
SIDE_CHECK = "{} IN ('left', 'right')"

Key = Annotated[int, mapped_column(primary_key=True)]
Millis = Annotated[int, mapped_column(BigInteger)]
Sha256 = Annotated[str, mapped_column(String(64))]
Token = Annotated[str, mapped_column(String(32), unique=True)]  # 128 bits, base64url
Side = Annotated[str, mapped_column(String(5))]
Picked = Annotated[str, mapped_column(String(5))]  # a side, a tie, or none


def is_alive(state: Any, expires_at: Any, now: Any) -> Any:
    """Whether a session counts, or is at it: its time is not over; of values or of columns."""
    return (state == "finished") | ((state == "active") & (expires_at > now))


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )


class Study(Base):
    """A study; `config_toml` is its whole Spec. Once it is frozen nothing of what it shows changes."""

    __tablename__ = "study"
    __table_args__ = (CheckConstraint("state IN ('draft', 'frozen', 'running', 'paused', 'closed')", name="state"),)
    id: Mapped[Key]
    slug: Mapped[str] = mapped_column(String(64), unique=True)
    state: Mapped[str] = mapped_column(String(8))
    config_toml: Mapped[str] = mapped_column(Text)
    config_sha256: Mapped[Sha256]
    models: Mapped[str] = mapped_column(Text)  # names, one a line
    created_at: Mapped[Millis]
    frozen_at: Mapped[Millis | None]
    salt: Mapped[str] = mapped_column(String(32), default="", server_default="")  # of the plan; shown to nobody
    conditions: Mapped[list["Condition"]] = relationship(back_populates="study", order_by="Condition.id")


class Condition(Base):
    """A viewing time with one model, beside its rival or the real picture (""), or with all of them (both are "")."""

    __tablename__ = "condition"
    __table_args__ = (
        UniqueConstraint("study_id", "label"),
        CheckConstraint("exposure_ms > 0", name="exposure"),
    )
    id: Mapped[Key]
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"))
    label: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    rival: Mapped[str] = mapped_column(Text, server_default="")
    exposure_ms: Mapped[int]
    study: Mapped[Study] = relationship(back_populates="conditions")


class Stimulus(Base):
    """The pictures of a trial, as PNG files. A catch trial's have no model.

    Where models are compared, the picture of `rival` is in the place of the real one.
    """

    __tablename__ = "stimulus"
    __table_args__ = (
        UniqueConstraint("study_id", "model", "rival", "image_id"),
        CheckConstraint("kind IN ('practice', 'test', 'catch')", name="kind"),
        CheckConstraint("(kind = 'catch') = (model = '')", name="model"),
        CheckConstraint("length(real_png) = length(other_png)", name="same_length"),
    )
    id: Mapped[Key]
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(8))
    number: Mapped[int]  # of its kind, in the pack's order
    model: Mapped[str] = mapped_column(Text)
    image_id: Mapped[str] = mapped_column(Text)
    group: Mapped[str] = mapped_column(Text, server_default="")  # of images that analyses draw together
    rival: Mapped[str] = mapped_column(Text, server_default="")
    width: Mapped[int]
    height: Mapped[int]
    real_png: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    other_png: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    middle_png: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)


class PlanSlot(Base):
    """One subject's place in a condition, its trials laid down when the study is frozen.

    `is_free`: no session holds it. Sessions say so, too, but of an index over these alone a free one is read at once.
    """

    __tablename__ = "plan_slot"
    __table_args__ = (
        UniqueConstraint("condition_id", "number"),
        Index(
            "ix_plan_slot_free",
            "condition_id",
            "number",
            sqlite_where=text("is_free"),
            postgresql_where=text("is_free"),
        ),
    )
    id: Mapped[Key]
    condition_id: Mapped[int] = mapped_column(ForeignKey("condition.id", ondelete="CASCADE"))
    number: Mapped[int]
    is_free: Mapped[bool] = mapped_column(default=True, server_default=true())
    condition: Mapped[Condition] = relationship()


class PlanTrial(Base):
    """What is shown at place `idx` of a slot, and on which side the real picture is."""

    __tablename__ = "plan_trial"
    __table_args__ = (
        UniqueConstraint("slot_id", "idx"),
        UniqueConstraint("slot_id", "stimulus_id"),
        CheckConstraint("idx >= 0", name="idx"),
        CheckConstraint(SIDE_CHECK.format("real_side"), name="real_side"),
    )
    id: Mapped[Key]
    slot_id: Mapped[int] = mapped_column(ForeignKey("plan_slot.id", ondelete="CASCADE"))
    idx: Mapped[int]
    stimulus_id: Mapped[int] = mapped_column(ForeignKey("stimulus.id"), index=True)
    real_side: Mapped[Side]
    stimulus: Mapped[Stimulus] = relationship()


class Participant(Base):
    """Who takes part: a random code and what was agreed to. A deleted one stays as a tombstone.

    `identity_hash`: keyed hash of who it is, where the study knows that; one participation each.
    """

    __tablename__ = "participant"
    __table_args__ = (UniqueConstraint("study_id", "identity_hash"),)
    id: Mapped[Key]
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    code: Mapped[Token]
    identity_hash: Mapped[str | None] = mapped_column(String(64))
    consent_version: Mapped[str] = mapped_column(String(64))
    consent_sha256: Mapped[Sha256]
    consent_at: Mapped[Millis]
    deleted_at: Mapped[Millis | None]
    study: Mapped[Study] = relationship()


class Identity(Base):
    """What a recruiting service or an invitation calls a participant. For payment alone: nothing else needs a row."""

    __tablename__ = "identity"
    participant_id: Mapped[int] = mapped_column(ForeignKey("participant.id", ondelete="CASCADE"), primary_key=True)
    source: Mapped[str] = mapped_column(String(8))
    person: Mapped[str] = mapped_column(String(64))
    project: Mapped[str] = mapped_column(String(64))
    submission: Mapped[str] = mapped_column(String(64))
    submit_to: Mapped[str] = mapped_column(String(64))


class Revocation(Base):
    """An invitation that lets nobody begin any more, by the keyed hash that its participant would have."""

    __tablename__ = "revocation"
    __table_args__ = (UniqueConstraint("study_id", "identity_hash"),)
    id: Mapped[Key]
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"))
    identity_hash: Mapped[Sha256]
    at: Mapped[Millis]


class Session(Base):
    """A participant's sitting on a slot. Of the token only the sha256 is here. At most one live session a slot."""

    __tablename__ = "session"
    __table_args__ = (
        CheckConstraint("state IN ('active', 'finished', 'excluded', 'withdrew', 'expired', 'deleted')", name="state"),
        CheckConstraint("(finished_at IS NOT NULL) = (completion_code IS NOT NULL)", name="completion"),
        CheckConstraint("state NOT IN ('finished', 'excluded') OR finished_at IS NOT NULL", name="finished"),
        CheckConstraint("state <> 'excluded' OR excluded_reason <> ''", name="excluded"),
        Index("uq_session_live_slot", "slot_id", unique=True, sqlite_where=text(LIVE), postgresql_where=text(LIVE)),
        Index("ix_session_active", "expires_at", sqlite_where=text(ACTIVE), postgresql_where=text(ACTIVE)),
    )
    id: Mapped[Key]
    participant_id: Mapped[int] = mapped_column(ForeignKey("participant.id"), index=True)
    slot_id: Mapped[int] = mapped_column(ForeignKey("plan_slot.id"), index=True)
    token_sha256: Mapped[str | None] = mapped_column(String(64), unique=True)
    state: Mapped[str] = mapped_column(String(8))
    started_at: Mapped[Millis]
    expires_at: Mapped[Millis]
    finished_at: Mapped[Millis | None]
    completion_code: Mapped[str | None] = mapped_column(String(32), unique=True)
    excluded_reason: Mapped[str] = mapped_column(String(32), default="")
    comprehension_attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    understood_at: Mapped[Millis | None]  # when the comprehension check was passed, where there is one
    viewport_w: Mapped[int | None]
    viewport_h: Mapped[int | None]
    dpr: Mapped[float | None]
    frame_ms: Mapped[float | None]
    touch: Mapped[bool | None]
    px_per_mm: Mapped[float | None]  # CSS pixels, by a card held against the screen
    participant: Mapped[Participant] = relationship()
    slot: Mapped[PlanSlot] = relationship()

    def leave(self, state: str) -> None:
        """Go over to a state that holds no place."""
        if self.state in LIVE_STATES:
            self.slot.is_free = True
        self.state = state

    @hybrid_method
    def holds_place(self, now: Any) -> Any:
        """Whether nobody else can get the session's place, of a session or in a query."""
        return is_alive(self.state, self.expires_at, now)


def of_study(query: Any, study: Study) -> Any:
    """A query of sessions, with their slots and conditions, of one study."""
    joined = query.join(Session.slot).join(PlanSlot.condition)
    return joined.where(Condition.study_id == study.id)


class Trial(Base):
    """A planned trial in one session: its pictures served, started (again after a reload), then answered."""

    __tablename__ = "trial"
    __table_args__ = (
        UniqueConstraint("session_id", "plan_trial_id"),
        CheckConstraint("(attempt IS NULL) = (started_at IS NULL)", name="started"),
        CheckConstraint("(showings > 0) = (started_at IS NOT NULL)", name="showings"),
        CheckConstraint(
            "started_at IS NULL OR (left_served_at IS NOT NULL AND right_served_at IS NOT NULL)", name="served"
        ),
    )
    id: Mapped[Key]
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    plan_trial_id: Mapped[int] = mapped_column(ForeignKey("plan_trial.id"), index=True)
    token: Mapped[Token]
    left_token: Mapped[Token]
    right_token: Mapped[Token]
    middle_token: Mapped[Token]
    left_served_at: Mapped[Millis | None]  # by the receipt that the first start showed, like the next two
    right_served_at: Mapped[Millis | None]
    middle_served_at: Mapped[Millis | None]
    started_at: Mapped[Millis | None]
    attempt: Mapped[str | None] = mapped_column(String(36))
    showings: Mapped[int] = mapped_column(default=0)
    planned: Mapped[PlanTrial] = relationship()
    response: Mapped["Response | None"] = relationship(back_populates="trial")


class Response(Base):
    """The one answer to a trial, with what the browser measured (study_protocol.md §3); times in ms."""

    __tablename__ = "response"
    __table_args__ = (
        CheckConstraint(CHOICE_CHECK, name="choice"),
        CheckConstraint("input IN ('key', 'mouse', 'touch')", name="input"),
        CheckConstraint("exposure_ms >= 0 AND rt_ms >= 0 AND rt_from_onset_ms >= 0", name="times"),
        CheckConstraint("t_off >= t_on", name="order"),
    )
    id: Mapped[Key]
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id"), unique=True)
    client_uuid: Mapped[str] = mapped_column(String(36), unique=True)
    body_sha256: Mapped[Sha256]
    received_at: Mapped[Millis]
    timing_ok: Mapped[bool]
    choice: Mapped[Picked]
    input: Mapped[str] = mapped_column(String(5))
    t_on: Mapped[float]
    t_off: Mapped[float]
    exposure_ms: Mapped[float]
    n_frames: Mapped[int]
    frame_median_ms: Mapped[float]
    frame_max_gap_ms: Mapped[float]
    hidden_ms: Mapped[float]
    blur_count: Mapped[int]
    rt_ms: Mapped[float]
    rt_from_onset_ms: Mapped[float]
    dpr: Mapped[float | None]  # this and what else is in SCREEN: empty after a deletion that keeps the answers
    css_w: Mapped[float | None]
    css_h: Mapped[float | None]
    natural_w: Mapped[int]
    natural_h: Mapped[int]
    viewport_w: Mapped[int | None]
    viewport_h: Mapped[int | None]
    fullscreen: Mapped[bool | None]
    decode_ms: Mapped[float]
    early_attempts: Mapped[int]
    trial: Mapped[Trial] = relationship(back_populates="response")
    further: Mapped[list["FurtherChoice"]] = relationship()


class FurtherChoice(Base):
    """The answer to another question about the same pair: all criteria but the first, which the response answers."""

    __tablename__ = "further_choice"
    __table_args__ = (
        UniqueConstraint("response_id", "criterion"),
        CheckConstraint(CHOICE_CHECK, name="choice"),
        CheckConstraint("rt_ms >= 0", name="rt_ms"),
    )
    id: Mapped[Key]
    response_id: Mapped[int] = mapped_column(ForeignKey("response.id", ondelete="CASCADE"))
    criterion: Mapped[str] = mapped_column(String(64))
    choice: Mapped[Picked]
    rt_ms: Mapped[float]


class Answer(Base):
    """What a session said to a question at the end."""

    __tablename__ = "answer"
    __table_args__ = (UniqueConstraint("session_id", "question_id"),)
    id: Mapped[Key]
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    question_id: Mapped[str] = mapped_column(String(64))
    text: Mapped[str] = mapped_column(Text)


class Event(Base):
    """What happened in the browser beside the trials: hidden, blurred, resized, reloaded …"""

    __tablename__ = "event"
    __table_args__ = (UniqueConstraint("session_id", "seq"),)
    id: Mapped[Key]
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    seq: Mapped[Millis]
    type: Mapped[str] = mapped_column(String(32))
    t_client: Mapped[float]
    t_server: Mapped[Millis]
    detail: Mapped[str] = mapped_column(Text)


class Account(Base):
    """Who may use the admin pages. Of the password only a scrypt hash is here."""

    __tablename__ = "account"
    id: Mapped[Key]
    name: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str] = mapped_column(Text)
    created_at: Mapped[Millis]


class Audit(Base):
    """What a researcher did: rows are added and never changed. The study's name stays when the study goes."""

    __tablename__ = "audit"
    id: Mapped[Key]
    at: Mapped[Millis]
    actor: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(32))
    study: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str] = mapped_column(Text)
