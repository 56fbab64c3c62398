"""What a session did: its trials, the answers to them, the questions at the end, and what happened beside."""

from sqlalchemy import CheckConstraint, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from study_app.models.base import CHOICE_CHECK, Base, Key, Millis, Picked, Sha256, Token
from study_app.models.plan import PlanTrial

SCREEN = ("viewport_w", "viewport_h", "dpr", "css_w", "css_h", "fullscreen")  # of a response, what tells of a device


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
    left_served_at: Mapped[Millis | None]  # by the receipt that the first start showed
    right_served_at: Mapped[Millis | None]
    middle_served_at: Mapped[Millis | None]  # of earlier versions alone, in which pictures came one by one
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
