"""Who takes part: what a study says before, who has begun already, and who gets which place."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session as Transaction

from study_app import bodies, statements
from study_app.languages import N_
from study_app.models import ENDED, Condition, Identity, Participant, PlanSlot, PlanTrial, Session, Stimulus, Study
from study_app.recruitment import Identity as Person
from study_app.refusal import RefusedError
from study_app.sessions import Desk, find_study, idle_ms, new_code, required, spec_of, with_token
from study_app.signing import hash_token, new_token
from study_app.spec import Spec

CLOSED = {
    "draft": N_("This study has not begun."),
    "frozen": N_("This study has not begun."),
    "paused": N_("This study is paused. Please come back later."),
    "closed": N_("This study is over. Thank you for your interest."),
}

# `elsewhere`: begun in another browser; `taken_part`: ended there; `somebody_else`: has begun in this one.
Standing = Literal["new", "active", "ended", "expired", "elsewhere", "taken_part", "somebody_else"]
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

    def overview(self, slug: str) -> Overview:
        """What is to be known before anybody takes part."""
        with self.database.read() as db:
            study = find_study(db, slug)
            return Overview(slug, study.state, spec_of(study.config_toml), *_size(db, study))

    def has_place(self, slug: str) -> bool:
        """Whether somebody who came now would get a place."""
        with self.database.read() as db:
            study = find_study(db, slug)
            idle = select(_idle(study.id, self.clock()).exists())
            return db.scalar(_free_slot(study.id)) is not None or bool(db.scalar(idle))

    def standing(self, slug: str, token: str, person: Person | None = None) -> Standing:
        """How far the holder of the token has come, or the person whom the link names."""
        with self.database.read() as db:
            session = db.scalar(with_token(slug, token))
            if session is not None:
                return self._standing(session) if self._is_of(session, person) else "somebody_else"
            session = self._of_person(db, find_study(db, slug), person)
            if session is None:
                return "new"
            return ELSEWHERE[self._standing(session)]

    def _standing(self, session: Session) -> Literal["active", "ended", "expired"]:
        if session.state in ENDED:
            return "ended"
        return "active" if session.holds_place(self.clock()) else "expired"

    def _is_of(self, session: Session, person: Person | None) -> bool:
        return person is None or session.participant.identity_hash in person.hashes(self.keys)

    def _of_person(self, db: Transaction, study: Study, person: Person | None) -> Session | None:
        """The session of somebody who is known by more than a cookie."""
        if person is None:
            return None
        query = select(Session).join(Session.participant).where(Participant.study_id == study.id)
        return db.scalar(query.where(Participant.identity_hash.in_(person.hashes(self.keys))))

    def exposure_ms(self, slug: str, token: str) -> int:
        """How long this subject sees the pictures of a trial."""
        with self.database.read() as db:
            return required(db.scalar(with_token(slug, token))).slot.condition.exposure_ms

    def enrol(self, slug: str, token: str, body: bodies.Start, person: Person | None = None) -> bool:
        """Claim a slot for a consenting subject; False where the token, or the person, has one already.

        A person who comes again with another cookie goes on with the same session, and the old cookie ends.
        """
        with self.database.write() as db:
            # One enrolment at a time, so that conditions fill evenly.
            study = find_study(db, slug, lock=True)
            session = db.scalar(with_token(slug, token))
            if session is None and (session := self._of_person(db, study, person)) is not None:
                self._hand_over(db, session, token, person)
            if session is not None:
                self._resume(session, person)
                return False
            spec = spec_of(study.config_toml)
            _admit(db, study, spec, body)
            now = self.clock()
            _release(db, study, now)
            slot = db.scalar(_free_slot(study.id))
            if slot is None:
                raise RefusedError("full")
            if spec.adaptive:
                from study_app.adaptive import choose_pairs  # and pandas and scipy, which only such studies need

                choose_pairs(db, study, spec, slot)
            self._seat(db, study, spec, slot, token, body, now, person)
            return True

    def _hand_over(self, db: Transaction, session: Session, token: str, person: Person | None) -> None:
        """To another browser of the same person."""
        if session.state in ENDED:
            raise RefusedError("taken_part")
        session.token_sha256 = hash_token(token)
        identity = db.get(Identity, session.participant_id)
        if identity is not None and person is not None:  # a task returned and taken again is another submission
            identity.project, identity.submission, identity.submit_to = (
                person.project,
                person.submission,
                person.submit_to,
            )

    def _resume(self, session: Session, person: Person | None) -> None:
        if not self._is_of(session, person):
            raise RefusedError("somebody_else")
        if session.state not in ENDED:
            self._alive(session.state, session.expires_at)

    def _seat(
        self,
        db: Transaction,
        study: Study,
        spec: Spec,
        slot: PlanSlot,
        token: str,
        body: bodies.Start,
        now: int,
        person: Person | None,
    ) -> None:
        """Write down the consent, the session and its trials."""
        consent = spec.consent
        device = {key: value for key, value in asdict(body).items() if key != "consent_sha256"}
        participant = Participant(
            study_id=study.id,
            code=new_code(10),
            identity_hash=person and person.hashes(self.keys)[0],
            consent_version=consent.version,
            consent_sha256=consent.sha256,
            consent_at=now,
        )
        session = Session(
            participant=participant,
            slot=slot,
            token_sha256=hash_token(token),
            state="active",
            started_at=now,
            expires_at=now + idle_ms(spec),
            **device,
        )
        slot.is_free = False
        db.add(session)
        db.flush()
        if person is not None:
            db.add(Identity(participant_id=participant.id, **asdict(person)))
        planned = db.scalars(select(PlanTrial.id).where(PlanTrial.slot_id == slot.id))
        tokens = ("token", "left_token", "right_token", "middle_token")
        rows = [
            {"session_id": session.id, "plan_trial_id": plan_id, **{name: new_token() for name in tokens}}
            for plan_id in planned
        ]
        db.connection().execute(statements.TRIALS, rows)


def _size(db: Transaction, study: Study) -> tuple[int, int]:
    """Greatest width and height of the study's pictures."""
    sizes = select(func.max(Stimulus.width), func.max(Stimulus.height)).where(Stimulus.study_id == study.id)
    width, height = db.execute(sizes).one()
    return width or 0, height or 0


def _admit(db: Transaction, study: Study, spec: Spec, body: bodies.Start) -> None:
    if study.state != "running":
        raise RefusedError("not_running", CLOSED[study.state])
    needed = spec.needed_window(*_size(db, study), body.dpr)
    if body.viewport_w < needed[0] or body.viewport_h < needed[1]:
        raise RefusedError(
            "too_small",
            N_("The pictures need a window of at least %(width)d × %(height)d pixels."),
            width=needed[0],
            height=needed[1],
        )
    if body.consent_sha256 != spec.consent.sha256:
        raise RefusedError("consent_changed")


def _idle(study_id: int, now: int) -> Select[int, int]:
    """Abandoned sessions that still hold their places."""
    query = select(Session.id, Session.slot_id).join(Session.participant).where(Participant.study_id == study_id)
    return query.where(Session.state == "active", Session.expires_at <= now)


def _release(db: Transaction, study: Study, now: int) -> None:
    """Give up abandoned sessions, whose slots are free then; what they answered stays."""
    idle = db.execute(_idle(study.id, now)).all()
    if idle:
        sessions, slots = zip(*idle, strict=True)
        db.execute(update(Session).where(Session.id.in_(sessions)).values(state="expired"))
        db.execute(update(PlanSlot).where(PlanSlot.id.in_(slots)).values(is_free=True))


def _free_slot(study_id: int) -> Select[Any]:
    """The free slot with the lowest number, so that conditions fill evenly. Reads one entry of an index a condition."""
    lowest = select(PlanSlot.id).where(PlanSlot.condition_id == Condition.id, PlanSlot.is_free)
    lowest_id = lowest.order_by(PlanSlot.number).limit(1).correlate(Condition).scalar_subquery()
    free = select(PlanSlot).join(Condition, PlanSlot.id == lowest_id).where(Condition.study_id == study_id)
    return free.order_by(PlanSlot.number, Condition.id).limit(1)
