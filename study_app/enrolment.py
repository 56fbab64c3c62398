"""Who takes part: what a study says before, who has begun already, and who gets which place."""

import datetime
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Executable, Row

from study_app import bodies, statements
from study_app.clock import Clock
from study_app.database import Database
from study_app.languages import N_
from study_app.models import ENDED, LIVE_STATES
from study_app.recruitment import Identity
from study_app.refusal import RefusedError
from study_app.sessions import Desk, check_alive, idle_ms, new_code, required, spec_of, with_token
from study_app.signing import Keys, hash_token, new_token
from study_app.spec import Spec

CLOSED = {
    "draft": N_("This study has not begun."),
    "frozen": N_("This study has not begun."),
    "paused": N_("This study is paused. Please come back later."),
    "closed": N_("This study is over. Thank you for your interest."),
}

# `elsewhere`: begun in another browser; `taken_part`: ended there; `somebody_else`: has begun in this one;
# `not_invited`: nobody has begun, and the invitation has ended.
Standing = Literal["new", "active", "ended", "expired", "elsewhere", "taken_part", "somebody_else", "not_invited"]
ELSEWHERE: dict[str, Standing] = {"active": "elsewhere", "ended": "taken_part", "expired": "expired"}


@dataclass(frozen=True)
class Overview:
    """What the pages say about a study; of its pictures, the greatest width and height in pixels."""

    slug: str
    state: str
    spec: Spec
    width: int
    height: int


class Enrolment(Desk):
    """From the first page to a place."""

    def __init__(self, database: Database, clock: Clock, keys: Keys) -> None:
        super().__init__(database, clock, keys)
        self._sizes: dict[tuple[int, int | None], tuple[int, int]] = {}  # of frozen studies, where they stay the same

    def overview(self, slug: str) -> Overview:
        """What is to be known before anybody takes part."""
        with self.database.reading() as db:
            study = _study(db, statements.STUDY, slug)
            return Overview(slug, study.state, spec_of(study.config_toml), *self._size(db, study))

    def _size(self, db: Connection, study: Row[Any]) -> tuple[int, int]:
        """Greatest width and height of the study's pictures."""
        key = (study.id, study.frozen_at)
        if key not in self._sizes or study.frozen_at is None:
            width, height = db.execute(statements.SIZE, {"study": study.id}).one()
            self._sizes[key] = (width, height)
        return self._sizes[key]

    def has_place(self, slug: str) -> bool:
        """Whether somebody who came now would get a place."""
        with self.database.reading() as db:
            study = _study(db, statements.STUDY, slug)
            if db.scalar(statements.FREE_SLOT, {"study": study.id}) is not None:
                return True
            return db.execute(statements.IDLE, {"study": study.id, "now": self.clock()}).first() is not None

    def standing(self, slug: str, token: str, person: Identity | None = None) -> Standing:
        """How far the holder of the token has come, or the person whom the link names."""
        with self.database.reading() as db:
            session = self._of_token(db, slug, token)
            if session is not None:
                return self._standing(session) if self._is_of(session, person) else "somebody_else"
            session = self._of_person(db, slug, person)
            if session is None:
                return "new" if self._is_invited(db, slug, person) else "not_invited"
            return ELSEWHERE[self._standing(session)]

    def _standing(self, session: Row[Any]) -> Literal["active", "ended", "expired"]:
        if session.state in ENDED:
            return "ended"
        return "active" if session.state in LIVE_STATES else "expired"

    def _is_of(self, session: Row[Any], person: Identity | None) -> bool:
        return person is None or session.identity_hash in person.hashes(self.keys)

    def _is_invited(self, db: Connection, slug: str, person: Identity | None) -> bool:
        """Whether somebody who has not begun may still do so, as far as the link says."""
        if person is None or person.source != "invited":
            return True
        today = datetime.datetime.fromtimestamp(self.clock() / 1000, datetime.UTC).date()
        is_over = person.until is not None and person.until < today
        return not (is_over or db.scalar(statements.REVOKED, {"slug": slug, "people": person.hashes(self.keys)}))

    def _of_token(self, db: Connection, slug: str, token: str) -> Row[Any] | None:
        return _session(db, statements.BY_TOKEN, slug=slug, session=hash_token(token))

    def _of_person(self, db: Connection, slug: str, person: Identity | None) -> Row[Any] | None:
        """The session of somebody who is known by more than a cookie."""
        if person is None:
            return None
        return _session(db, statements.BY_PERSON, slug=slug, people=person.hashes(self.keys))

    def exposure_ms(self, slug: str, token: str) -> int:
        """How long this subject sees the pictures of a trial."""
        with self.database.read() as db:
            return required(db.scalar(with_token(slug, token))).slot.condition.exposure_ms

    def enrol(self, slug: str, token: str, body: bodies.Start, person: Identity | None = None) -> bool:
        """Claim a slot for a consenting subject; False where the token, or the person, has one already.

        A person who comes again with another cookie goes on with the same session, and the old cookie ends.
        """
        with self.database.statements() as db:
            # One enrolment at a time, so that conditions fill evenly.
            study = _study(db, statements.HELD_STUDY, slug)
            session = self._of_token(db, slug, token)
            if session is None and (session := self._of_person(db, slug, person)) is not None:
                _hand_over(db, session, token)
            if session is not None:
                self._resume(db, session, person)
                return False
            if not self._is_invited(db, slug, person):
                raise RefusedError("not_invited")
            spec = spec_of(study.config_toml)
            _admit(study.state, spec, self._size(db, study), body)
            slot = self._free_slot(db, study)
            if spec.adaptive:
                from study_app.adaptive import choose_pairs  # and pandas and scipy, which only such studies need

                choose_pairs(db, study, spec, slot)
            participant = self._write_consent(db, study.id, spec, person)
            self._seat(db, participant, slot, token, spec, body)
            return True

    def resume(self, slug: str, token: str, person: Identity) -> None:
        """The person of a session that goes on comes again by a link."""
        with self.database.statements() as db:
            session = self._of_token(db, slug, token)
            if session is not None:
                self._resume(db, session, person)

    def _resume(self, db: Connection, session: Row[Any], person: Identity | None) -> None:
        """A task that was returned and taken again is another submission, and it is the one that is paid."""
        if not self._is_of(session, person):
            raise RefusedError("somebody_else")
        if session.state in ENDED:
            return
        check_alive(session.state)
        if person is not None:
            submission = {name: getattr(person, name) for name in statements.SUBMISSION}
            db.execute(statements.RESUBMIT, {"participant": session.participant_id, **submission})

    def _free_slot(self, db: Connection, study: Row[Any]) -> int:
        """The first free place, or else that of whoever left longest ago, whose answers then do not count."""
        slot = db.scalar(statements.FREE_SLOT, {"study": study.id})
        if slot is not None:
            return slot
        idle = db.execute(statements.HELD_IDLE, {"study": study.id, "now": self.clock()}).first()
        if idle is None:
            raise RefusedError("full")
        db.execute(statements.EXPIRE, {"session": idle.id})
        return idle.slot_id

    def _write_consent(self, db: Connection, study: int, spec: Spec, person: Identity | None) -> int:
        consent = {
            "study_id": study,
            "code": new_code(10),
            "identity_hash": person and person.hashes(self.keys)[0],
            "consent_version": spec.consent.version,
            "consent_sha256": spec.consent.sha256,
            "consent_at": self.clock(),
        }
        participant = db.execute(statements.CONSENT, consent).scalar_one()
        if person is not None:
            known = {name: getattr(person, name) for name in ("source", "person", *statements.SUBMISSION)}
            db.execute(statements.IDENTIFY, {"participant_id": participant, **known})
        return participant

    def _seat(self, db: Connection, participant: int, slot: int, token: str, spec: Spec, body: bodies.Start) -> None:
        """The session on its place, with its trials."""
        now = self.clock()
        device = {key: value for key, value in asdict(body).items() if key != "consent_sha256"}
        times = {"started_at": now, "expires_at": now + idle_ms(spec)}
        known = {"participant_id": participant, "slot_id": slot, "token_sha256": hash_token(token), "state": "active"}
        session = db.execute(statements.SEAT, {**known, **times, **device}).scalar_one()
        db.execute(statements.TAKE, {"slot": slot})
        tokens = ("token", "left_token", "right_token", "middle_token")
        trials = [
            {"session_id": session, "plan_trial_id": planned, **{name: new_token() for name in tokens}}
            for planned in db.scalars(statements.PLANNED, {"slot": slot})
        ]
        db.execute(statements.TRIALS, trials)


def _study(db: Connection, query: Executable, slug: str) -> Row[Any]:
    study = db.execute(query, {"slug": slug}).one_or_none()
    if study is None:
        raise RefusedError("not_found", N_("There is no such study."))
    return study


def _session(db: Connection, query: Executable, **named: Any) -> Row[Any] | None:
    return db.execute(query, named).first()


def _hand_over(db: Connection, session: Row[Any], token: str) -> None:
    """To another browser of the same person."""
    if session.state in ENDED:
        raise RefusedError("taken_part")
    db.execute(statements.HAND_OVER, {"session": session.id, "token": hash_token(token)})


def _admit(state: str, spec: Spec, size: tuple[int, int], body: bodies.Start) -> None:
    if state != "running":
        raise RefusedError("not_running", CLOSED[state])
    needed = spec.needed_window(*size, body.dpr)
    if body.viewport_w < needed[0] or body.viewport_h < needed[1]:
        raise RefusedError(
            "too_small",
            N_("The pictures need a window of at least %(width)d × %(height)d pixels."),
            width=needed[0],
            height=needed[1],
        )
    if body.consent_sha256 != spec.consent.sha256:
        raise RefusedError("consent_changed")
