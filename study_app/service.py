"""What a subject does, from consent to completion code. No Flask here, and the time is whoever's `clock` it is.

A trial goes issued -> started -> answered, strictly in the plan's order. Every method is one short transaction that
holds the session's row, so that two tabs or a retry cannot interleave; what slips through hits a constraint.
Methods raise RefusedError. `token` is the cookie's value.
"""

import hashlib
import logging
import secrets
import tomllib
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

from sqlalchemy import Select, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session as Transaction
from sqlalchemy.orm import aliased, contains_eager, joinedload

from sr3eval.config import from_dict
from study_app import bodies
from study_app.clock import Clock, system_clock
from study_app.database import Database
from study_app.models import (
    Answer,
    Condition,
    Event,
    Participant,
    PlanSlot,
    PlanTrial,
    Response,
    Session,
    Stimulus,
    Study,
    Trial,
)
from study_app.refusal import RefusedError
from study_app.spec import EARLY_MS, Spec

LOOK_AHEAD = 3  # trials whose pictures may be fetched before they are shown
LINGER_MS = 60_000  # how long after the answer they may still be
MAX_EVENTS = 5000  # of a session
CODE_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"  # none that is mistaken for another
LIVE_STATES = ("active", "finished")

Standing = Literal["new", "active", "finished", "expired"]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Overview:
    """What the pages say about a study; of its pictures, the greatest width and height in pixels."""

    slug: str
    state: str
    spec: Spec
    width: int
    height: int


class Service:
    """The study as subjects meet it, on a database and a clock (ms, UTC)."""

    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        self.database, self.clock = database, clock

    def overview(self, slug: str) -> Overview:
        """What is to be known before anybody takes part."""
        with self.database.read() as db:
            study = _study(db, slug)
            sizes = select(func.max(Stimulus.width), func.max(Stimulus.height)).where(Stimulus.study_id == study.id)
            width, height = db.execute(sizes).one()
            return Overview(slug, study.state, spec_of(study.config_toml), width or 0, height or 0)

    def standing(self, slug: str, token: str) -> Standing:
        """How far the holder of the token has come."""
        with self.database.read() as db:
            session = db.scalar(_session(slug, token))
            if session is None:
                return "new"
            if session.state == "active" and self.clock() < session.expires_at:
                return "active"
            return "finished" if session.state == "finished" else "expired"

    def certificate(self, slug: str, token: str) -> tuple[str, str | None]:
        """The subject's code and, once finished, the completion code."""
        with self.database.read() as db:
            session = _require(db.scalar(_session(slug, token)))
            return session.participant.code, session.completion_code

    def exposure_ms(self, slug: str, token: str) -> int:
        """How long this subject sees the pictures of a trial."""
        with self.database.read() as db:
            return _require(db.scalar(_session(slug, token))).slot.condition.exposure_ms

    def enrol(self, slug: str, token: str, body: bodies.Start) -> bool:
        """Claim a slot for a consenting subject; False where the token has one already."""
        with self.database.write() as db:
            # One enrolment at a time, so that conditions fill evenly.
            study = _study(db, slug, lock=True)
            session = db.scalar(_session(slug, token))
            if session is not None:
                self._alive(session)
                return False
            spec = spec_of(study.config_toml)
            _admit(study, spec, body)
            now = self.clock()
            _release(db, study, now)
            slot = db.scalar(_free_slot(study))
            if slot is None:
                raise RefusedError("full", "All places of this study are taken at the moment. Please try again later.")
            self._seat(db, study, spec, slot, token, body, now)
            return True

    def _seat(
        self, db: Transaction, study: Study, spec: Spec, slot: PlanSlot, token: str, body: bodies.Start, now: int
    ) -> None:
        """Write down the consent, the session and its trials."""
        consent = spec.consent
        device = {key: value for key, value in asdict(body).items() if key != "consent_sha256"}
        session = Session(
            participant=Participant(
                study_id=study.id,
                code=_code(10),
                consent_version=consent.version,
                consent_sha256=consent.sha256,
                consent_at=now,
            ),
            slot=slot,
            token_sha256=hash_token(token),
            state="active",
            started_at=now,
            expires_at=now + _idle_ms(spec),
            **device,
        )
        db.add(session)
        db.flush()
        planned = db.scalars(select(PlanTrial.id).where(PlanTrial.slot_id == slot.id))
        tokens = ("token", "left_token", "right_token", "middle_token")
        rows = [
            {"session_id": session.id, "plan_trial_id": plan_id, **{name: new_token() for name in tokens}}
            for plan_id in planned
        ]
        db.execute(insert(Trial), rows)

    def upcoming(self, slug: str, token: str) -> dict[str, Any]:
        """Where the session stands, with the next trials (at most LOOK_AHEAD), whose pictures may be fetched now."""
        with self.database.write() as db:
            session = _require(db.scalar(_session(slug, token, lock=True)))
            spec = spec_of(session.participant.study.config_toml)
            done, total = _progress(db, session)
            window: list[Trial] = []
            if session.state != "finished":
                self._alive(session)
                window = list(db.scalars(_trials(session, done, done + LOOK_AHEAD)))
                self._issue(session, spec, window)
            return {
                "state": "done" if session.state == "finished" else "trials" if done < total else "questions",
                "done": done,
                "total": total,
                "exposure_ms": session.slot.condition.exposure_ms,
                "mask_ms": spec.mask_ms,
                "fixation_ms": spec.fixation_ms,
                "question": spec.asked,
                "zoom": spec.zoom,
                "window": [_describe(trial, spec, total) for trial in window],
            }

    def _issue(self, session: Session, spec: Spec, window: list[Trial]) -> None:
        for trial in window:
            if trial.issued_at is None:
                trial.issued_at = self.clock()
                session.expires_at = trial.issued_at + _idle_ms(spec)

    def picture(self, slug: str, token: str, picture_token: str) -> bytes:
        """The PNG file behind one of this session's picture tokens, while the trial is near."""
        names, now = (Trial.left_token, Trial.right_token, Trial.middle_token), self.clock()
        with self.database.read() as db:
            row = db.execute(
                select(Trial, PlanTrial, Response.received_at)
                .join(Trial.planned)
                .outerjoin(Trial.response)
                .join(Session, Trial.session_id == Session.id)
                .where(or_(*(name == picture_token for name in names)), Trial.issued_at.is_not(None))
                .join(Session.participant)
                .join(Participant.study)
                .where(Session.token_sha256 == hash_token(token), Study.slug == slug)
                .where(Session.state.in_(LIVE_STATES), or_(Session.state == "finished", Session.expires_at > now))
            ).first()
            if row is None or (row[2] is not None and now >= row[2] + LINGER_MS):
                raise RefusedError("not_found", "There is no such picture.")
            png = db.scalar(select(_column(*row[:2], picture_token)).where(Stimulus.id == row[1].stimulus_id))
            if png is None:
                raise RefusedError("not_found", "There is no such picture.")
            return png

    def start(self, slug: str, token: str, trial_token: str, body: bodies.Showing) -> int:
        """Note that the pictures are shown from now on; returns for how many ms. Idempotent for one attempt."""
        with self.database.write() as db:
            session, trial = self._trial(db, slug, token, trial_token)
            if trial.response is not None:
                raise RefusedError("answered", "This trial has its answer; fetch the next one.")
            self._next(db, session, trial)
            if trial.attempt != body.attempt:
                trial.attempt, trial.started_at = body.attempt, self.clock()
                trial.showings += 1
                self._touch(session)
            return session.slot.condition.exposure_ms

    def respond(self, slug: str, token: str, trial_token: str, body: bodies.Choice) -> bool | None:
        """Store the answer, once. Returns whether it was right in practice, else None.

        The same body again gives the same again; another one is refused.
        """
        try:
            with self.database.write() as db:
                session, trial = self._trial(db, slug, token, trial_token)
                if trial.response is None:
                    self._accept(db, session, trial, body)
                elif trial.response.body_sha256 != body.sha256:
                    raise IntegrityError("another body", None, ValueError())
                compared = spec_of(session.participant.study.config_toml).against  # models: no answer is wrong
                told = trial.planned.stimulus.kind == "practice" and not compared
                return body.choice == trial.planned.real_side if told else None
        except IntegrityError:
            log.warning("conflicting answer to a trial of study %s", slug)
            raise RefusedError("conflict", "Another answer is stored already.") from None

    def _accept(self, db: Transaction, session: Session, trial: Trial, body: bodies.Choice) -> None:
        now = self.clock()
        self._next(db, session, trial)
        if trial.started_at is None:
            raise RefusedError("not_started", "The pictures of this trial have not been shown.")
        exposure_ms = session.slot.condition.exposure_ms
        wait = trial.started_at + exposure_ms - EARLY_MS - now
        if wait > 0:
            raise RefusedError("too_early", "The answer came before the pictures had been seen.", retry_after_ms=wait)
        trial.response = Response(
            **asdict(body), body_sha256=body.sha256, received_at=now, timing_ok=body.timing_ok(exposure_ms)
        )
        self._touch(session)
        db.flush()

    def note(self, slug: str, token: str, body: bodies.Events) -> None:
        """Store what happened in the browser; what was sent before is passed over."""
        with self.database.write() as db:
            session = _require(db.scalar(_session(slug, token, lock=True)))
            known = set(db.scalars(select(Event.seq).where(Event.session_id == session.id)))
            new = {event.seq: event for event in body.events if event.seq not in known}
            if len(known) + len(new) > MAX_EVENTS:
                raise RefusedError("slow_down", "Too many events of one session.", retry_after=3600)
            now = self.clock()
            db.add_all(
                Event(session_id=session.id, seq=e.seq, type=e.type, t_client=e.t, t_server=now, detail=e.detail)
                for e in new.values()
            )

    def finish(self, slug: str, token: str, body: bodies.Finish) -> None:
        """Store the answers to the questions and give the completion code; needs every trial's answer."""
        with self.database.write() as db:
            session = _require(db.scalar(_session(slug, token, lock=True)))
            if session.state == "finished":
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
                session.excluded_reason = "failed_catch"

    def _trial(self, db: Transaction, slug: str, token: str, trial_token: str) -> tuple[Session, Trial]:
        session = _require(db.scalar(_session(slug, token, lock=True)))
        wanted = select(Trial).where(Trial.session_id == session.id, Trial.token == trial_token)
        planned = joinedload(Trial.planned, innerjoin=True).joinedload(PlanTrial.stimulus, innerjoin=True)
        trial = db.scalar(wanted.where(Trial.issued_at.is_not(None)).options(planned, joinedload(Trial.response)))
        if trial is None:
            raise RefusedError("not_found", "There is no such trial.")
        return session, trial

    def _next(self, db: Transaction, session: Session, trial: Trial) -> None:
        self._alive(session)
        if trial.planned.idx != _progress(db, session)[0]:
            raise RefusedError("out_of_order", "Another trial comes first; fetch the next one.")

    def _alive(self, session: Session) -> None:
        if session.state in ("expired", "deleted") or (
            session.state == "active" and self.clock() >= session.expires_at
        ):
            raise RefusedError("expired", "This session has ended because nothing happened for too long.")

    def _touch(self, session: Session) -> None:
        session.expires_at = self.clock() + _idle_ms(spec_of(session.participant.study.config_toml))


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
    return "".join(secrets.choice(CODE_LETTERS) for _ in range(length))


def _idle_ms(spec: Spec) -> int:
    return spec.idle_minutes * 60_000


def _study(db: Transaction, slug: str, lock: bool = False) -> Study:
    query = select(Study).where(Study.slug == slug)
    study = db.scalar(query.with_for_update(key_share=True) if lock else query)
    if study is None:
        raise RefusedError("not_found", "There is no such study.")
    return study


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
        raise RefusedError("no_session", "You are not taking part in this study; start from its first page.")
    return session


def _admit(study: Study, spec: Spec, body: bodies.Start) -> None:
    if study.state != "running":
        raise RefusedError("not_running", "This study is not open at the moment.")
    if body.viewport_w < spec.min_viewport[0] or body.viewport_h < spec.min_viewport[1]:
        smallest = "x".join(map(str, spec.min_viewport))
        raise RefusedError("too_small", f"The pictures need a window of at least {smallest} pixels.")
    if body.consent_sha256 != spec.consent.sha256:
        raise RefusedError("consent_changed", "The text has changed; please load the page again and read it.")


def _release(db: Transaction, study: Study, now: int) -> None:
    """Give up abandoned sessions, whose slots are free then; what they answered stays."""
    idle = select(Session.id).join(Session.participant).where(Participant.study_id == study.id)
    idle = idle.where(Session.state == "active", Session.expires_at <= now)
    db.execute(
        update(Session).where(Session.id.in_(idle)).values(state="expired"),
        execution_options={"synchronize_session": False},
    )


def _free_slot(study: Study) -> Select[Any]:
    """The lowest free slot of the condition with the fewest taken ones."""
    live = Session.state.in_(LIVE_STATES)
    other = aliased(PlanSlot)
    taken = (
        select(func.count())
        .select_from(Session)
        .join(other, Session.slot_id == other.id)
        .where(live, other.condition_id == PlanSlot.condition_id)
        .correlate(PlanSlot)
        .scalar_subquery()
    )
    return (
        select(PlanSlot)
        .join(PlanSlot.condition)
        .where(Condition.study_id == study.id, ~exists().where(Session.slot_id == PlanSlot.id, live))
        .order_by(taken, Condition.id, PlanSlot.number)
        .limit(1)
        .with_for_update(of=PlanSlot, skip_locked=True)
    )


def _progress(db: Transaction, session: Session) -> tuple[int, int]:
    """How many trials have an answer, and how many there are."""
    counts = select(func.count(Response.id), func.count(Trial.id)).select_from(Trial).outerjoin(Trial.response)
    done, total = db.execute(counts.where(Trial.session_id == session.id)).one()
    return done, total


def _trials(session: Session, first: int, end: int) -> Select[Any]:
    query = select(Trial).join(Trial.planned).options(joinedload(Trial.planned).joinedload(PlanTrial.stimulus))
    return query.where(Trial.session_id == session.id, PlanTrial.idx >= first, PlanTrial.idx < end).order_by(
        PlanTrial.idx
    )


def _describe(trial: Trial, spec: Spec, total: int) -> dict[str, Any]:
    """What the browser is told of a trial: nothing that depends on which picture is which."""
    idx, stimulus = trial.planned.idx, trial.planned.stimulus
    pictures = {"left": trial.left_token, "right": trial.right_token}
    if spec.task == 1:
        pictures["middle"] = trial.middle_token
    return {
        "token": trial.token,
        "index": idx,
        "phase": "practice" if idx < spec.practice else "test",
        "break_before": idx in _breaks(spec, total),
        "width": stimulus.width,
        "height": stimulus.height,
        "pictures": pictures,
        "reexposed": trial.showings > 0,
    }


def _breaks(spec: Spec, total: int) -> set[int]:
    tests = total - spec.practice
    return {spec.practice + round(tests * i / (spec.breaks + 1)) for i in range(1, spec.breaks + 1)}


def _column(trial: Trial, planned: PlanTrial, picture_token: str) -> Any:
    if picture_token == trial.middle_token:
        return Stimulus.middle_png
    side = "left" if picture_token == trial.left_token else "right"
    return Stimulus.real_png if side == planned.real_side else Stimulus.other_png


def _check_answers(spec: Spec, body: bodies.Finish) -> None:
    questions = {question.id: question for question in spec.questions}
    for key, text in body.answers.items():
        if key not in questions:
            raise RefusedError("bad_request", "An answer is to no question of this study.")
        if questions[key].kind == "choice" and text not in questions[key].options:
            raise RefusedError("bad_request", f'"{key}" must be one of the options.')


def _catches_passed(db: Transaction, session: Session) -> int:
    query = select(func.count()).select_from(Response).join(Response.trial).join(Trial.planned)
    query = query.join(PlanTrial.stimulus).where(Trial.session_id == session.id, Stimulus.kind == "catch")
    return db.scalar(query.where(Response.choice == PlanTrial.real_side)) or 0
