"""What a subject does, from consent to completion code. No Flask here, and the time is whoever's `clock` it is.

A trial goes issued -> pictures served -> started -> answered, strictly in the plan's order. Every method is one short
transaction that holds the session's row, so that two tabs or a retry cannot interleave; what slips through hits a
constraint. Methods raise RefusedError. `token` is the cookie's, without its signature.
"""

import hashlib
import logging
import secrets
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from sqlalchemy import Connection, Row, Select, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session as Transaction
from sqlalchemy.orm import contains_eager, joinedload

from sr3eval.config import from_dict
from study_app import bodies, statements
from study_app.clock import Clock
from study_app.database import Database
from study_app.models import (
    ENDED,
    Answer,
    Condition,
    Identity,
    Participant,
    PlanSlot,
    PlanTrial,
    Response,
    Session,
    Stimulus,
    Study,
    Trial,
    is_alive,
)
from study_app.noise import decode, noisy
from study_app.pictures import Kept
from study_app.recruitment import LETTERS, Exit, Outcome
from study_app.recruitment import Identity as Person
from study_app.refusal import RefusedError
from study_app.signing import Keys
from study_app.spec import EARLY_MS, LATENCY_MS, PRELOAD_MS, Spec
from study_app.statements import PLACES

LOOK_AHEAD = 2  # trials that are told of: the present one and the next
LINGER_MS = 60_000  # how long after the answer they may still be
FILES_ROOM, PIXELS_ROOM = 32 << 20, 64 << 20  # bytes of each process for pictures as they are, and for decoded ones
MAX_EVENTS = 1000  # of a session; a restless one has some hundred
FAILED = "failed-"  # how the random code of a session begins that did not pass the catch trials
CLOSED = {
    "draft": "This study has not begun.",
    "frozen": "This study has not begun.",
    "paused": "This study is paused. Please come back later.",
    "closed": "This study is over. Thank you for your interest.",
}
FAILED_CATCH = "failed_catch"  # an excluded_reason

# `elsewhere`: begun in another browser; `taken_part`: ended there; `somebody_else`: has begun in this one.
Standing = Literal["new", "active", "ended", "expired", "elsewhere", "taken_part", "somebody_else"]
ELSEWHERE: dict[str, Standing] = {"active": "elsewhere", "ended": "taken_part", "expired": "expired"}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Overview:
    """What the pages say about a study; of its pictures, the greatest width and height in pixels."""

    slug: str
    state: str
    spec: Spec
    width: int
    height: int


@dataclass(frozen=True)
class Certificate:
    """What a session is to its subject: a code to have it deleted by, and what to leave with, once it has ended."""

    subject: str
    exit: Exit | None
    submission: str  # to `submit_to`, where the answer is handed in by a form (MTurk); else ""
    submit_to: str


@dataclass(frozen=True)
class Sitting:
    """What every trial needs to know of its session."""

    id: int
    state: str
    expires_at: int
    slot_id: int
    exposure_ms: int
    spec: Spec


class Service:
    """The study as subjects meet it, on a database, a clock (ms, UTC) and the server's keys."""

    def __init__(self, database: Database, clock: Clock, keys: Keys) -> None:
        self.database, self.clock, self.keys = database, clock, keys
        self._files = Kept[bytes](FILES_ROOM, len)
        self._pixels = Kept[np.ndarray](PIXELS_ROOM, lambda pixels: pixels.nbytes)

    def overview(self, slug: str) -> Overview:
        """What is to be known before anybody takes part."""
        with self.database.read() as db:
            study = _study(db, slug)
            return Overview(slug, study.state, spec_of(study.config_toml), *_size(db, study))

    def has_place(self, slug: str) -> bool:
        """Whether somebody who came now would get a place."""
        with self.database.read() as db:
            study = _study(db, slug)
            idle = select(_idle(study.id, self.clock()).exists())
            return db.scalar(_free_slot(study.id)) is not None or bool(db.scalar(idle))

    def standing(self, slug: str, token: str, person: Person | None = None) -> Standing:
        """How far the holder of the token has come, or the person whom the link names."""
        with self.database.read() as db:
            session = db.scalar(_session(slug, token))
            if session is not None:
                return self._standing(session) if self._is_of(session, person) else "somebody_else"
            session = self._of_person(db, _study(db, slug), person)
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

    def certificate(self, slug: str, token: str) -> Certificate:
        """The subject's code and, once the session has ended, what to leave with."""
        with self.database.read() as db:
            session = _require(db.scalar(_session(slug, token)))
            identity = db.get(Identity, session.participant_id)
            spec = spec_of(session.participant.study.config_toml)
            leaving = None
            if session.state in ENDED:
                leaving = spec.recruitment.exit(_outcome(session), session.completion_code or "")
            submission = (identity.submission, identity.submit_to) if identity and identity.submit_to else ("", "")
            return Certificate(session.participant.code, leaving, *submission)

    def exposure_ms(self, slug: str, token: str) -> int:
        """How long this subject sees the pictures of a trial."""
        with self.database.read() as db:
            return _require(db.scalar(_session(slug, token))).slot.condition.exposure_ms

    def enrol(self, slug: str, token: str, body: bodies.Start, person: Person | None = None) -> bool:
        """Claim a slot for a consenting subject; False where the token, or the person, has one already.

        A person who comes again with another cookie goes on with the same session, and the old cookie ends.
        """
        with self.database.write() as db:
            # One enrolment at a time, so that conditions fill evenly.
            study = _study(db, slug, lock=True)
            session = db.scalar(_session(slug, token))
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
            self._alive(session)

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
            code=_code(10),
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
            expires_at=now + _idle_ms(spec),
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

    def upcoming(self, slug: str, token: str) -> dict[str, Any]:
        """Where the session stands, with the next trials (at most LOOK_AHEAD), whose pictures may be fetched now."""
        with self.database.statements(durable=False) as db:
            sitting = _sitting(db, slug, token)
            done, total = _progress(db, sitting)
            window: Sequence[Row[Any]] = ()
            if sitting.state not in ENDED:
                self._alive(sitting)
                places = {"id": sitting.id, "slot": sitting.slot_id, "first": done, "end": done + LOOK_AHEAD}
                window = db.execute(statements.WINDOW, places).all()
                self._issue(db, sitting, window)
            spec = sitting.spec
            return {
                "state": "done" if sitting.state in ENDED else "trials" if done < total else "questions",
                "done": done,
                "total": total,
                "exposure_ms": sitting.exposure_ms,
                "mask_ms": spec.mask_ms,
                "fixation_ms": spec.fixation_ms,
                "questions": [criterion.question for criterion in spec.asked],
                "criteria": [criterion.id for criterion in spec.asked],
                "zoom": spec.zoom,
                "window": [_describe(trial, spec, total) for trial in window],
            }

    def _issue(self, db: Connection, sitting: Sitting, window: Sequence[Row[Any]]) -> None:
        new = [{"trial": trial.id, "now": self.clock()} for trial in window if trial.issued_at is None]
        if new:
            db.execute(statements.ISSUE, new)
            self._touch(db, sitting)

    def picture(self, slug: str, token: str, picture_token: str) -> bytes:
        """The PNG file behind a picture token of this session, while its trial is near. Notes when it was served."""
        now = self.clock()
        named = {"slug": slug, "session": hash_token(token), "picture": picture_token, "now": now}
        with self.database.statements(durable=False) as db:
            found = db.execute(statements.NEAR, named).one_or_none()
            if found is None or (found.answered_at is not None and now >= found.answered_at + LINGER_MS):
                raise RefusedError("not_found", "There is no such picture.")
            _check_nearness(found, now)
            place = next(place for place in PLACES if getattr(found, f"{place}_token") == picture_token)
            if getattr(found, f"{place}_served_at") is None:
                db.execute(statements.SERVE[place], {"trial": found.id, "now": now})
        name = "middle" if place == "middle" else "real" if place == found.real_side else "other"
        key = (found.study_id, found.frozen_at, found.stimulus_id, name)
        levels = spec_of(found.config_toml).noise
        if name == "middle" or not levels:
            return self._files.get(key, lambda: self._file(found.stimulus_id, name))
        pixels = self._pixels.get(key, lambda: decode(self._file(found.stimulus_id, name)))
        return noisy(pixels, levels, self.keys.hash("noise", picture_token))

    def _file(self, stimulus: int, name: str) -> bytes:
        with self.database.read() as db:
            png = db.scalar(statements.FILE[name], {"stimulus": stimulus})
        if png is None:
            raise RefusedError("not_found", "There is no such picture.")
        return png

    def start(self, slug: str, token: str, trial_token: str, body: bodies.Showing) -> int:
        """Note that the pictures are shown from now on; returns for how many ms. Idempotent for one attempt."""
        with self.database.statements(durable=False) as db:
            sitting, trial = _trial(db, slug, token, trial_token)
            if trial.body_sha256 is not None:
                raise RefusedError("answered")
            self._next(db, sitting, trial)
            if not _was_served(trial, sitting.spec):
                raise RefusedError("not_fetched")
            if trial.attempt != body.attempt:
                db.execute(statements.SHOW, {"trial": trial.id, "uuid": body.attempt, "now": self.clock()})
                if trial.showings == 0:  # showing it again and again holds no place
                    self._touch(db, sitting)
            return sitting.exposure_ms

    def respond(self, slug: str, token: str, trial_token: str, body: bodies.Choice) -> bool | None:
        """Store the answer, once. Returns whether it was right in practice, else None.

        The same body again gives the same again; another one is refused.
        """
        try:
            with self.database.statements() as db:
                sitting, trial = _trial(db, slug, token, trial_token)
                if trial.body_sha256 is None:
                    self._accept(db, sitting, trial, body)
                elif trial.body_sha256 != body.sha256:
                    raise IntegrityError("another body", None, ValueError())
                told = trial.kind == "practice" and sitting.spec.has_right_answers
                return body.choice == trial.real_side if told else None
        except IntegrityError:
            log.warning("conflicting answer to a trial of study %s", slug)
            raise RefusedError("conflict") from None

    def _accept(self, db: Connection, sitting: Sitting, trial: Row[Any], body: bodies.Choice) -> None:
        now = self.clock()
        self._next(db, sitting, trial)
        if trial.started_at is None:
            raise RefusedError("not_started")
        _check_choices(sitting.spec, body)
        wait = trial.started_at + sitting.exposure_ms - EARLY_MS - now
        if wait > 0:
            raise RefusedError("too_early", retry_after_ms=wait)
        elapsed = now - trial.started_at
        if body.claimed_ms > elapsed + EARLY_MS:
            raise RefusedError("impossible_time")
        clocks_agree = elapsed - body.claimed_ms <= sitting.spec.fixation_ms + LATENCY_MS
        known = {"trial_id": trial.id, "body_sha256": body.sha256, "received_at": now}
        timing_ok = clocks_agree and body.timing_ok(sitting.exposure_ms)
        response = db.scalar(statements.ANSWER, {**body.measured, **known, "timing_ok": timing_ok})
        if body.further:
            db.execute(statements.FURTHER, [{**asdict(answer), "response_id": response} for answer in body.further])
        self._touch(db, sitting)

    def note(self, slug: str, token: str, body: bodies.Events) -> None:
        """Store what happened in the browser; what was sent before is passed over."""
        with self.database.statements(durable=False) as db:
            sitting = _sitting(db, slug, token)
            self._alive(sitting)
            sent = {event.seq: event for event in body.events}
            at = {"session_id": sitting.id, "t_server": self.clock()}
            count = db.scalar(statements.COUNT_EVENTS, {"id": sitting.id}) or 0
            known = set(db.scalars(statements.KNOWN_EVENTS, {"id": sitting.id, "sent": list(sent)}))
            new = [
                {"seq": e.seq, "type": e.type, "t_client": e.t, "detail": e.detail, **at}
                for e in sent.values()
                if e.seq not in known
            ]
            if count + len(new) > MAX_EVENTS:
                raise RefusedError("slow_down", "Too many events of one session.", retry_after=3600)
            if new:
                db.execute(statements.EVENTS, new)

    def finish(self, slug: str, token: str, body: bodies.Finish) -> None:
        """Store the answers to the questions and give the completion code; needs every trial's answer."""
        with self.database.write() as db:
            session = _require(db.scalar(_session(slug, token, lock=True)))
            if session.state in ENDED:
                return
            self._alive(session)
            done, total = _progress(db, session)
            if done < total:
                raise RefusedError("trials_missing", f"{total - done} of {total} trials have no answer yet.")
            spec = spec_of(session.participant.study.config_toml)
            _check_answers(spec, body)
            db.add_all(Answer(session_id=session.id, question_id=key, text=text) for key, text in body.answers.items())
            session.state, session.finished_at, session.completion_code = "finished", self.clock(), _code(12)
            if _catches_passed(db, session) < spec.catch_pass:
                session.excluded_reason = FAILED_CATCH
                session.completion_code = FAILED + session.completion_code
                if spec.replace_failed:
                    session.leave("excluded")

    def withdraw(self, slug: str, token: str) -> None:
        """End the session at its subject's wish: it counts no more, and its place is free."""
        with self.database.write() as db:
            session = _require(db.scalar(_session(slug, token, lock=True)))
            if session.state not in ENDED:
                self._alive(session)
                session.leave("withdrew")
                session.excluded_reason = "withdrew"

    def _next(self, db: Connection, sitting: Sitting, trial: Row[Any]) -> None:
        self._alive(sitting)
        if trial.idx != _progress(db, sitting)[0]:
            raise RefusedError("out_of_order")

    def _alive(self, session: Session | Sitting) -> None:
        if not is_alive(session.state, session.expires_at, self.clock()):
            raise RefusedError("over" if session.state in ENDED else "expired")

    def _touch(self, db: Connection, sitting: Sitting) -> None:
        until = self.clock() + _idle_ms(sitting.spec)
        db.execute(statements.TOUCH, {"session": sitting.id, "until": until})


def hash_token(token: str) -> str:
    """What the database knows of a cookie."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """128 random bits as 22 characters for URLs and cookies."""
    return secrets.token_urlsafe(16)


@lru_cache(maxsize=64)
def spec_of(config_toml: str) -> Spec:
    """The Spec that a study was made from."""
    return from_dict(Spec, tomllib.loads(config_toml))


def _code(length: int) -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(length))


def _idle_ms(spec: Spec) -> int:
    return spec.idle_minutes * 60_000


def _study(db: Transaction, slug: str, lock: bool = False) -> Study:
    query = select(Study).where(Study.slug == slug)
    study = db.scalar(query.with_for_update(key_share=True) if lock else query)
    if study is None:
        raise RefusedError("not_found", "There is no such study.")
    return study


def _size(db: Transaction, study: Study) -> tuple[int, int]:
    """Greatest width and height of the study's pictures."""
    sizes = select(func.max(Stimulus.width), func.max(Stimulus.height)).where(Stimulus.study_id == study.id)
    width, height = db.execute(sizes).one()
    return width or 0, height or 0


def _session(slug: str, token: str, lock: bool = False) -> Select[Any]:
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


def _require(session: Session | None) -> Session:
    if session is None:
        raise RefusedError("no_session")
    return session


def _outcome(session: Session) -> Outcome:
    if session.state == "withdrew":
        return "no_consent"
    return "failed_checks" if session.excluded_reason == FAILED_CATCH else "complete"


def _admit(db: Transaction, study: Study, spec: Spec, body: bodies.Start) -> None:
    if study.state != "running":
        raise RefusedError("not_running", CLOSED[study.state])
    needed = spec.needed_window(*_size(db, study), body.dpr)
    if body.viewport_w < needed[0] or body.viewport_h < needed[1]:
        raise RefusedError("too_small", f"The pictures need a window of at least {needed[0]}x{needed[1]} pixels.")
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


def _sitting(db: Connection, slug: str, token: str) -> Sitting:
    row = db.execute(statements.SITTING, {"slug": slug, "session": hash_token(token)}).one_or_none()
    if row is None:
        raise RefusedError("no_session")
    return Sitting(row.id, row.state, row.expires_at, row.slot_id, row.exposure_ms, spec_of(row.config_toml))


def _trial(db: Connection, slug: str, token: str, trial_token: str) -> tuple[Sitting, Row[Any]]:
    sitting = _sitting(db, slug, token)
    trial = db.execute(statements.TRIAL, {"id": sitting.id, "token": trial_token}).one_or_none()
    if trial is None:
        raise RefusedError("not_found", "There is no such trial.")
    return sitting, trial


def _progress(db: Transaction | Connection, session: Session | Sitting) -> tuple[int, int]:
    """How many trials have an answer, and how many there are."""
    done, total = db.execute(statements.PROGRESS, {"id": session.id}).one()
    return done, total


def _describe(trial: Row[Any], spec: Spec, total: int) -> dict[str, Any]:
    """What the browser is told of a trial: nothing that depends on which picture is which."""
    pictures = {"left": trial.left_token, "right": trial.right_token}
    if spec.task == 1:
        pictures["middle"] = trial.middle_token
    return {
        "token": trial.token,
        "index": trial.idx,
        "phase": "practice" if trial.idx < spec.practice else "test",
        "break_before": trial.idx in _breaks(spec, total),
        "width": trial.width,
        "height": trial.height,
        "pictures": pictures,
        "reexposed": trial.showings > 0,
    }


def _breaks(spec: Spec, total: int) -> set[int]:
    tests = total - spec.practice
    return {spec.practice + round(tests * i / (spec.breaks + 1)) for i in range(1, spec.breaks + 1)}


def _check_nearness(found: Row[Any], now: int) -> None:
    """Not until the trial before, if any, nears its end: what comes later cannot be studied meanwhile."""
    if found.idx == 0 or found.answer_before is not None:
        return
    opens = (found.started_before or now) + found.exposure_ms - PRELOAD_MS
    if found.started_before is None or now < opens:
        raise RefusedError("not_yet", retry_after_ms=max(opens - now, 1000))


def _was_served(trial: Row[Any], spec: Spec) -> bool:
    return all(getattr(trial, f"{place}_served_at") is not None for place in PLACES[: spec.side_by_side])


def _check_choices(spec: Spec, body: bodies.Choice) -> None:
    """Every criterion has its answer, and each is one that there is a button for."""
    criteria = [answer.criterion for answer in body.further]
    if criteria != [criterion.id for criterion in spec.asked[1:]]:
        raise RefusedError("bad_request", "A question about the pair has no answer, or another's.")
    if not {body.choice, *(answer.choice for answer in body.further)} <= spec.choices.keys():
        raise RefusedError("bad_request", "This study has no such answer.")


def _check_answers(spec: Spec, body: bodies.Finish) -> None:
    questions = {question.id: question for question in spec.questions}
    for key, text in body.answers.items():
        if key not in questions:
            raise RefusedError("bad_request", "An answer is to no question of this study.")
        if questions[key].answers and text not in questions[key].answers:
            raise RefusedError("bad_request", f'"{key}" must be one of the options.')
    if missing := [key for key, question in questions.items() if question.required and not body.answers.get(key)]:
        raise RefusedError("bad_request", f'"{missing[0]}" needs an answer.')


def _catches_passed(db: Transaction, session: Session) -> int:
    query = select(func.count()).select_from(Response).join(Response.trial).join(Trial.planned)
    query = query.join(PlanTrial.stimulus).where(Trial.session_id == session.id, Stimulus.kind == "catch")
    return db.scalar(query.where(Response.choice == PlanTrial.real_side)) or 0
