"""What a study is and shows: its settings, conditions, pictures, and the places that are laid down for subjects."""

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint, text, true
from sqlalchemy.orm import Mapped, mapped_column, relationship

from study_app.models.base import SIDE_CHECK, Base, Key, Millis, Sha256, Side


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
