"""Who may use the admin pages, and what was done there and on the command line."""

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from study_app.models.base import Base, Key, Millis


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
