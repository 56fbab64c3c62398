"""Which study, which session, and whether it is alive: what every part of the service asks in its transactions."""

import secrets
import tomllib
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Select, select
from sqlalchemy.orm import Session as Transaction
from sqlalchemy.orm import contains_eager, joinedload

from sr3eval.config import from_dict
from study_app import statements
from study_app.clock import Clock
from study_app.database import Database
from study_app.languages import N_
from study_app.models import ENDED, LIVE_STATES, Participant, PlanSlot, Session, Study
from study_app.recruitment import LETTERS
from study_app.refusal import RefusedError
from study_app.signing import Keys, hash_token
from study_app.spec import Spec


class Desk:
    """Where subjects are dealt with: a database, a clock (ms, UTC) and the server's keys."""

    def __init__(self, database: Database, clock: Clock, keys: Keys) -> None:
        self.database, self.clock, self.keys = database, clock, keys


def check_alive(state: str) -> None:
    """Refuse what a session asks for that has ended, or whose place somebody else has.

    However long nothing happened: as long as nobody needs the place, it goes on.
    """
    if state not in LIVE_STATES:
        raise RefusedError("over" if state in ENDED else "expired")


@lru_cache(maxsize=64)
def spec_of(config_toml: str) -> Spec:
    """The Spec that a study was made from."""
    return from_dict(Spec, tomllib.loads(config_toml))


def new_code(length: int) -> str:
    """Random letters and digits, for people to copy."""
    return "".join(secrets.choice(LETTERS) for _ in range(length))


def idle_ms(spec: Spec) -> int:
    """How long a place is kept from others for somebody who does nothing."""
    return spec.idle_minutes * 60_000


def find_study(db: Transaction, slug: str) -> Study:
    """The study of this name; "not_found" without one."""
    study = db.scalar(select(Study).where(Study.slug == slug))
    if study is None:
        raise RefusedError("not_found", N_("There is no such study."))
    return study


def with_token(slug: str, token: str, lock: bool = False) -> Select[Any]:
    """The session that a cookie is of."""
    query = (
        select(Session)
        .join(Session.participant)
        .join(Participant.study)
        .where(Session.token_sha256 == hash_token(token), Study.slug == slug)
        .options(
            contains_eager(Session.participant).contains_eager(Participant.study),
            joinedload(Session.slot, innerjoin=True).joinedload(PlanSlot.condition, innerjoin=True),
        )
    )
    return query.with_for_update(of=Session) if lock else query


def required(session: Session | None) -> Session:
    """The session; "no_session" without one."""
    if session is None:
        raise RefusedError("no_session")
    return session


def progress(db: Transaction | Connection, session: int) -> tuple[int, int]:
    """How many trials have an answer, and how many there are."""
    done, total = db.execute(statements.PROGRESS, {"id": session}).one()
    return done, total
