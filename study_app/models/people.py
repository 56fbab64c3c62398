"""Who takes part, what others call them, and their sessions."""

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.ext.hybrid import hybrid_method
from sqlalchemy.orm import Mapped, mapped_column, relationship

from study_app.models.base import Base, Key, Millis, Sha256, Token
from study_app.models.plan import Condition, PlanSlot, Study

ENDED = ("finished", "excluded", "withdrew")  # states of sessions that shall answer nothing more
LIVE_STATES = ("active", "finished")
EXPIRED = "expired"  # a state, and the excluded_reason of whose place is free for somebody else
ACTIVE = "state = 'active'"
LIVE = "state IN ('active', 'finished')"  # of sessions that hold their place


def is_alive(state: Any, expires_at: Any, now: Any) -> Any:
    """Whether a session counts, or is at it: its time is not over; of values or of columns."""
    return (state == "finished") | ((state == "active") & (expires_at > now))


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
