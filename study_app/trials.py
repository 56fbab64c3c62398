"""The trials: told of, pictures fetched, started, answered, strictly in the plan's order.

What every trial asks of the database is in `statements`: no ORM here.
"""

import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, Executable, Row
from sqlalchemy.exc import IntegrityError

from study_app import bodies, statements
from study_app.clock import Clock
from study_app.database import Database
from study_app.languages import N_
from study_app.models import ENDED
from study_app.noise import decode, noisy
from study_app.pictures import Kept
from study_app.refusal import RefusedError
from study_app.sessions import Desk, check_alive, idle_ms, progress, spec_of
from study_app.signing import Keys, hash_token
from study_app.spec import EARLY_MS, LATENCY_MS, Spec
from study_app.statements import PLACES

LOOK_AHEAD = 2  # trials that are told of: the present one and the next
LINGER_MS = 60_000  # how long after the answer they may still be
FILES_ROOM, PIXELS_ROOM = 32 << 20, 64 << 20  # bytes of each process for pictures as they are, and for decoded ones
MAX_EVENTS = 1000  # of a session; a restless one has some hundred
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sitting:
    """What every trial needs to know of its session."""

    id: int
    state: str
    slot_id: int
    exposure_ms: int
    spec: Spec
    attempts: int  # at the comprehension check
    understood: bool  # so that trials may begin


class Trials(Desk):
    """From the first trial to the last answer."""

    def __init__(self, database: Database, clock: Clock, keys: Keys) -> None:
        super().__init__(database, clock, keys)
        self._files = Kept[bytes](FILES_ROOM, len)
        self._pixels = Kept[np.ndarray](PIXELS_ROOM, lambda pixels: pixels.nbytes)

    def upcoming(self, slug: str, token: str) -> dict[str, Any]:
        """Where the session stands, with the next trials (at most LOOK_AHEAD), the first of which may begin now."""
        with self.database.reading() as db:
            sitting = _sitting(db, statements.SITTING, slug, token)
            if sitting.state not in ENDED:
                check_alive(sitting.state)
            done, total = progress(db, sitting.id)
            return _outlook(db, sitting, done, total)

    def pictures(self, slug: str, token: str, trial_token: str) -> tuple[dict[str, bytes], str]:
        """The PNG files of a trial of this session by place, while it is near, and a receipt of the time."""
        now = self.clock()
        named = {"slug": slug, "session": hash_token(token), "trial": trial_token}
        with self.database.reading() as db:
            found = db.execute(statements.NEAR, named).one_or_none()
        if found is None or (found.answered_at is not None and now >= found.answered_at + LINGER_MS):
            raise RefusedError("not_found", N_("There are no such pictures."))
        _check_nearness(found, now)
        spec = spec_of(found.config_toml)
        files = {place: self._png(found, place, spec.noise) for place in PLACES[: spec.side_by_side]}
        return files, self.keys.sign("receipt", f"{trial_token}.{now}")

    def _png(self, found: Row[Any], place: str, levels: int) -> bytes:
        name = "middle" if place == "middle" else "real" if place == found.real_side else "other"
        key = (found.study_id, found.frozen_at, found.stimulus_id, name)
        if name == "middle" or not levels:
            return self._files.get(key, lambda: self._file(found.stimulus_id, name))
        pixels = self._pixels.get(key, lambda: decode(self._file(found.stimulus_id, name)))
        return noisy(pixels, levels, self.keys.hash("noise", getattr(found, f"{place}_token")))

    def _file(self, stimulus: int, name: str) -> bytes:
        with self.database.read() as db:
            png = db.scalar(statements.FILE[name], {"stimulus": stimulus})
        if png is None:
            raise RefusedError("not_found", N_("There are no such pictures."))
        return png

    def start(self, slug: str, token: str, trial_token: str, body: bodies.Showing) -> int:
        """Note that the pictures are shown from now on; returns for how many ms. Idempotent for one attempt."""
        with self.database.statements(durable=False) as db:
            sitting, trial = _trial(db, slug, token, trial_token)
            if trial.body_sha256 is not None:
                raise RefusedError("answered")
            self._next(sitting, trial)
            served = self._served_at(trial_token, body.receipt)
            if trial.attempt != body.attempt:
                shown = {"trial": trial.id, "uuid": body.attempt, "now": self.clock(), "served": served}
                db.execute(statements.SHOW, shown)
                if trial.showings == 0:  # showing it again and again holds no place
                    self._touch(db, sitting)
            return sitting.exposure_ms

    def _served_at(self, trial_token: str, receipt: str) -> int:
        """When the pictures were served, says the receipt that the browser chose; refused where it is another's."""
        of, _, at = (self.keys.unsign("receipt", receipt) or "").partition(".")
        if of != trial_token:
            raise RefusedError("not_fetched")
        return int(at)

    def respond(
        self, slug: str, token: str, trial_token: str, body: bodies.Choice
    ) -> tuple[bool | None, dict[str, Any]]:
        """Store the answer, once. Returns whether it was right in practice, else None; and what comes next.

        The same body again gives the same again; another one is refused.
        """
        try:
            with self.database.statements() as db:
                sitting, trial = _trial(db, slug, token, trial_token)
                if trial.body_sha256 is None:
                    self._accept(db, sitting, trial, body)
                elif trial.body_sha256 != body.sha256:
                    raise IntegrityError("another body", None, ValueError())
        except IntegrityError:
            log.warning("conflicting answer to a trial of study %s", slug)
            raise RefusedError("conflict") from None
        told = trial.kind == "practice" and sitting.spec.has_right_answers
        with self.database.reading() as db:
            outlook = _outlook(db, sitting, trial.idx + 1, sitting.spec.trials)
        return body.choice == trial.real_side if told else None, outlook

    def _accept(self, db: Connection, sitting: Sitting, trial: Row[Any], body: bodies.Choice) -> None:
        now = self.clock()
        self._next(sitting, trial)
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
        timing_ok = trial.showings == 1 and clocks_agree and body.timing_ok(sitting.exposure_ms)
        response = db.scalar(statements.ANSWER, {**body.measured, **known, "timing_ok": timing_ok})
        if body.further:
            db.execute(statements.FURTHER, [{**asdict(answer), "response_id": response} for answer in body.further])
        self._touch(db, sitting)

    def note(self, slug: str, token: str, body: bodies.Events) -> None:
        """Store what happened in the browser; what was sent before is passed over."""
        with self.database.statements(durable=False) as db:
            sitting = _sitting(db, statements.HELD, slug, token)
            check_alive(sitting.state)
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

    def _next(self, sitting: Sitting, trial: Row[Any]) -> None:
        check_alive(sitting.state)
        if trial.idx > 0 and trial.answer_before is None:
            raise RefusedError("out_of_order")

    def _touch(self, db: Connection, sitting: Sitting) -> None:
        until = self.clock() + idle_ms(sitting.spec)
        db.execute(statements.TOUCH, {"session": sitting.id, "until": until})


def _sitting(db: Connection, query: Executable, slug: str, token: str) -> Sitting:
    row = db.execute(query, {"slug": slug, "session": hash_token(token)}).one_or_none()
    if row is None:
        raise RefusedError("no_session")
    spec = spec_of(row.config_toml)
    understood = row.understood_at is not None or not spec.comprehension.questions
    place = (row.slot_id, row.exposure_ms, spec)
    return Sitting(row.id, row.state, *place, row.comprehension_attempts, understood)


def _outlook(db: Connection, sitting: Sitting, done: int, total: int) -> dict[str, Any]:
    """What a browser is told of a session in which so many trials are done."""
    spec = sitting.spec
    places = {"id": sitting.id, "slot": sitting.slot_id, "first": done, "end": done + LOOK_AHEAD}
    may_begin = sitting.state not in ENDED and sitting.understood
    window = db.execute(statements.WINDOW, places).all() if may_begin else []
    return {
        "state": _stage(sitting, done, total),
        "attempts": sitting.attempts,
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


def _stage(sitting: Sitting, done: int, total: int) -> str:
    """What a browser does next."""
    if sitting.state in ENDED:
        return "done"
    if not sitting.understood:
        return "comprehension"
    return "trials" if done < total else "questions"


def _trial(db: Connection, slug: str, token: str, trial_token: str) -> tuple[Sitting, Row[Any]]:
    sitting = _sitting(db, statements.HELD, slug, token)
    trial = db.execute(statements.TRIAL, {"id": sitting.id, "token": trial_token}).one_or_none()
    if trial is None:
        raise RefusedError("not_found", N_("There is no such trial."))
    return sitting, trial


def _describe(trial: Row[str, int, int, int, int], spec: Spec, total: int) -> dict[str, Any]:
    """What the browser is told of a trial: nothing that depends on which picture is which."""
    return {
        "token": trial.token,
        "index": trial.idx,
        "phase": "practice" if trial.idx < spec.practice else "test",
        "break_before": trial.idx in _breaks(spec, total),
        "width": trial.width,
        "height": trial.height,
        "reexposed": trial.showings > 0,
    }


def _breaks(spec: Spec, total: int) -> set[int]:
    tests = total - spec.practice
    return {spec.practice + round(tests * i / (spec.breaks + 1)) for i in range(1, spec.breaks + 1)}


def _check_nearness(found: Row[Any], now: int) -> None:
    """Not while the pictures of the trial before are shown, or still to be shown."""
    if found.idx == 0 or found.answer_before is not None:
        return
    opens = (found.started_before or now) + found.exposure_ms
    if found.started_before is None or now < opens:
        raise RefusedError("not_yet", retry_after_ms=opens - now)


def _check_choices(spec: Spec, body: bodies.Choice) -> None:
    """Every criterion has its answer, and each is one that there is a button for."""
    criteria = [answer.criterion for answer in body.further]
    if criteria != [criterion.id for criterion in spec.asked[1:]]:
        raise RefusedError("bad_request", "A question about the pair has no answer, or another's.")
    if not {body.choice, *(answer.choice for answer in body.further)} <= spec.choices.keys():
        raise RefusedError("bad_request", "This study has no such answer.")
