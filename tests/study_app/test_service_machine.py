"""The service under any order of visits, answers, repeats, drop-outs and time: what must hold, holds at every step."""

import dataclasses
import functools
import random
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import func, select

from study_app import bodies
from study_app.admin import Admin
from study_app.bots import SCREEN, Bot
from study_app.clock import ManualClock
from study_app.database import Database
from study_app.models import PlanSlot, PlanTrial, Response, Session, Stimulus, Trial
from study_app.pack import Pack, Pair
from study_app.recruitment import Identity
from study_app.refusal import RefusedError
from study_app.service import Service
from study_app.signing import Keys, new_token
from study_app.trials import LINGER_MS, LOOK_AHEAD
from tests.study_app.small_study import small_spec, write_pack

SPEC = small_spec(images=4, per_subject=2, target=2, practice=1, catch=1, catch_pass=1, questions=())
TOTAL = 4
IDLE_MS = SPEC.idle_minutes * 60_000
START = {**SCREEN, "frame_ms": 16.7, "touch": False}
tokens = st.integers(0, 30)


@functools.cache
def pairs() -> list[Pair]:
    """Read once: the pictures do not change."""
    with tempfile.TemporaryDirectory() as folder:
        pack = Pack(write_pack(Path(folder), test=4, practice=1, catch=1, size=16))
        return list(pack.pairs(SPEC, pack.slugs()))


@dataclasses.dataclass
class Visitor:
    """What the model expects of one session."""

    token: str
    touched: int  # when it last did something that keeps its place
    person: Identity | None  # where more than a cookie is known
    replaced: bool = False  # by somebody on the same place
    answered: list[tuple[str, bodies.Choice]] = dataclasses.field(default_factory=list)
    window: list[dict] = dataclasses.field(default_factory=list)
    attempt: str | None = None
    started: int | None = None
    showings: int = 0
    finished: bool = False
    passed: bool = False  # the catch trial
    left_out: bool = False  # by the researcher
    receipts: dict[str, str] = dataclasses.field(default_factory=dict)  # by trial


class StudyMachine(RuleBasedStateMachine):
    """Visitors of a study with 2 conditions x 2 places x 4 trials."""

    @initialize()
    def open(self):
        self.folder = tempfile.TemporaryDirectory()
        self.clock, self.rng = ManualClock(), random.Random(0)
        self.database = Database(f"sqlite:///{self.folder.name}/study.sqlite", durable=False)
        self.service, admin = Service(self.database, self.clock, Keys("secret")), Admin(self.database, self.clock)
        self.admin = admin
        admin.create("study", SPEC, ["sr3", "esrgan (x4)"], pairs())
        admin.freeze("study", salt="0" * 32)
        admin.move("study", "run")
        self.visitors: list[Visitor] = []
        self.uuid = functools.partial(Bot.uuid, self)  # Bot's own, from self.rng

    def teardown(self):
        if hasattr(self, "database"):
            self.database.engine.dispose()
            self.folder.cleanup()

    def pick(self, index):
        return self.visitors[index % len(self.visitors)]

    def alive(self, visitor):
        return not visitor.replaced

    def holds_place(self, visitor):
        return self.counts(visitor) if visitor.finished else self.alive(visitor)

    def longest_idle(self):
        idle = [v for v in self.visitors if not v.finished and self.alive(v) and self.clock() >= v.touched + IDLE_MS]
        return min(idle, key=lambda visitor: visitor.touched, default=None)

    def counts(self, visitor):
        return visitor.passed and not visitor.left_out

    def passes(self, visitor):
        """Whether the catch trial, of whatever place in the plan, was answered with the real side."""
        query = select(PlanTrial.real_side, Trial.token).join(Trial.planned).join(PlanTrial.stimulus)
        with self.database.read() as db:
            truth = {token: side for side, token in db.execute(query.where(Stimulus.kind == "catch"))}
        return all(truth.get(trial, body.choice) == body.choice for trial, body in visitor.answered)

    def refuses(self, code, call, *arguments):
        with pytest.raises(RefusedError) as refusal:
            call("study", *arguments)
        assert refusal.value.code == code

    def choice(self, side):
        measured = Bot.measured(self, {"width": 16, "height": 16}, 3000, side, 0.0)
        return bodies.Choice(**measured)

    @rule(known=st.booleans())
    def enrol(self, known=False):
        body = bodies.Start(SPEC.consent.sha256, **START)
        token = new_token()
        person = Identity("invited", f"person{len(self.visitors)}") if known else None
        is_full = sum(self.holds_place(visitor) for visitor in self.visitors) == 4
        assert self.service.has_place("study") == (not is_full or self.longest_idle() is not None)
        if is_full and self.longest_idle() is None:
            self.refuses("full", self.service.enrol, token, body, person)
        else:
            if is_full:
                self.longest_idle().replaced = True
            assert self.service.enrol("study", token, body, person)
            assert not self.service.enrol("study", token, body, person)  # a double click
            self.visitors.append(Visitor(token, self.clock(), person))

    @precondition(lambda self: any(visitor.person for visitor in self.visitors))
    @rule(index=tokens)
    def come_again_without_the_cookie(self, index):
        """The same person goes on with the same session, or is told that it is over; never gets another place."""
        known = [visitor for visitor in self.visitors if visitor.person]
        visitor, token = known[index % len(known)], new_token()
        arguments = (token, bodies.Start(SPEC.consent.sha256, **START), visitor.person)
        if visitor.finished:
            return self.refuses("taken_part", self.service.enrol, *arguments)
        if not self.alive(visitor):
            return self.refuses("expired", self.service.enrol, *arguments)
        assert not self.service.enrol("study", *arguments)
        self.refuses("no_session", self.service.upcoming, visitor.token)
        visitor.token = token

    @precondition(lambda self: self.visitors)
    @rule(index=tokens)
    def reload(self, index):
        visitor = self.pick(index)
        if not self.alive(visitor):
            return self.refuses("expired", self.service.upcoming, visitor.token)
        now = self.service.upcoming("study", visitor.token)
        done = len(visitor.answered)
        state = "done" if visitor.finished else "trials" if done < TOTAL else "questions"
        assert (now["state"], now["done"], now["total"]) == (state, done, TOTAL)
        visitor.window = now["window"]
        expected = [] if visitor.finished else list(range(done, TOTAL))[:LOOK_AHEAD]
        assert [trial["index"] for trial in visitor.window] == expected
        if visitor.window:
            assert visitor.window[0]["reexposed"] == (visitor.showings > 0)

    @precondition(lambda self: self.visitors)
    @rule(index=tokens, again=st.booleans())
    def start(self, index, again):
        visitor = self.pick(index)
        if not visitor.window:
            return
        attempt = visitor.attempt if again and visitor.attempt else self.uuid()
        trial = visitor.window[0]["token"]
        arguments = (visitor.token, trial, bodies.Showing(attempt, visitor.receipts.get(trial, "")))
        if visitor.answered and visitor.window[0]["token"] == visitor.answered[-1][0]:
            return self.refuses("answered", self.service.start, *arguments)
        if not self.alive(visitor):
            return self.refuses("expired", self.service.start, *arguments)
        if trial not in visitor.receipts:
            return self.refuses("not_fetched", self.service.start, *arguments)
        assert self.service.start("study", *arguments) == 3000
        if attempt != visitor.attempt:
            visitor.attempt, visitor.started = attempt, self.clock()
            visitor.showings += 1
            if visitor.showings == 1:  # showing it again does not hold the place
                visitor.touched = self.clock()

    @precondition(lambda self: self.visitors)
    @rule(index=tokens, side=st.sampled_from(["left", "right"]))
    def answer(self, index, side):
        visitor = self.pick(index)
        if not visitor.window or (visitor.answered and visitor.window[0]["token"] == visitor.answered[-1][0]):
            return
        trial, body = visitor.window[0]["token"], self.choice(side)
        if not self.alive(visitor):
            return self.refuses("expired", self.service.respond, visitor.token, trial, body)
        if visitor.started is None:
            return self.refuses("not_started", self.service.respond, visitor.token, trial, body)
        if self.clock() < visitor.started + 3000 - 250:
            return self.refuses("too_early", self.service.respond, visitor.token, trial, body)
        correct, following = self.service.respond("study", visitor.token, trial, body)
        assert following == self.service.upcoming("study", visitor.token)
        assert (correct is not None) == (len(visitor.answered) < SPEC.practice)
        visitor.answered.append((trial, body))
        visitor.attempt = visitor.started = None
        visitor.showings, visitor.touched = 0, self.clock()

    @precondition(lambda self: any(visitor.answered for visitor in self.visitors))
    @rule(index=tokens, place=tokens)
    def answer_again(self, index, place):
        visitor = [visitor for visitor in self.visitors if visitor.answered][
            index % sum(bool(v.answered) for v in self.visitors)
        ]
        trial, body = visitor.answered[place % len(visitor.answered)]
        self.service.respond("study", visitor.token, trial, body)
        other = "left" if body.choice == "right" else "right"
        self.refuses("conflict", self.service.respond, visitor.token, trial, dataclasses.replace(body, choice=other))

    @precondition(lambda self: self.visitors)
    @rule(index=tokens)
    def answer_out_of_order(self, index):
        visitor = self.pick(index)
        if len(visitor.window) > 1 and self.alive(visitor) and visitor.window[0]["index"] == len(visitor.answered):
            trial = visitor.window[1]["token"]
            self.refuses("out_of_order", self.service.start, visitor.token, trial, bodies.Showing(self.uuid()))
            self.refuses("out_of_order", self.service.respond, visitor.token, trial, self.choice("left"))

    @precondition(lambda self: len(self.visitors) > 1)
    @rule(index=tokens, body=st.booleans())
    def take_anothers_trial(self, index, body):
        visitor, other = self.pick(index), self.pick(index + 1)
        for trial in other.window:
            self.refuses("not_found", self.service.start, visitor.token, trial["token"], bodies.Showing(self.uuid()))
            self.refuses("not_found", self.service.pictures, visitor.token, trial["token"])

    @precondition(lambda self: self.visitors)
    @rule(index=tokens)
    def look(self, index):
        visitor = self.pick(index)
        for trial in visitor.window:
            answered = trial["token"] in dict(visitor.answered)
            if not answered and not self.alive(visitor):
                self.refuses("not_found", self.service.pictures, visitor.token, trial["token"])
            elif trial["index"] > len(visitor.answered) and (
                visitor.started is None or self.clock() < visitor.started + 3000
            ):
                self.refuses("not_yet", self.service.pictures, visitor.token, trial["token"])
            elif not answered:
                files, receipt = self.service.pictures("study", visitor.token, trial["token"])
                visitor.receipts[trial["token"]] = receipt
                assert len(files["left"]) == len(files["right"]) and files["left"] != files["right"]

    @precondition(lambda self: self.visitors)
    @rule(index=tokens)
    def finish(self, index):
        visitor = self.pick(index)
        if visitor.finished or (self.alive(visitor) and len(visitor.answered) == TOTAL):
            self.service.finish("study", visitor.token, bodies.Finish({}))
            visitor.finished, visitor.passed = True, self.passes(visitor)
            leaving = self.service.certificate("study", visitor.token).exit
            assert leaving.outcome == ("complete" if visitor.passed else "failed_checks")
            assert leaving.code.startswith("failed-") != visitor.passed
        else:
            code = "trials_missing" if self.alive(visitor) else "expired"
            self.refuses(code, self.service.finish, visitor.token, bodies.Finish({}))
            assert self.service.certificate("study", visitor.token).exit is None

    @precondition(lambda self: any(self.counts(visitor) for visitor in self.visitors))
    @rule(index=tokens)
    def reopen(self, index):
        counted = [visitor for visitor in self.visitors if self.counts(visitor)]
        visitor = counted[index % len(counted)]
        assert self.admin.reopen("study", [self.service.certificate("study", visitor.token).subject]) == 1
        visitor.left_out = True

    @precondition(lambda self: self.visitors)
    @rule(index=tokens, side=st.sampled_from(["left", "right"]), waits=st.lists(st.sampled_from([2749, 2750, 3500])))
    def go_on(self, index, side, waits):
        """What most people do most of the time; some press too early."""
        for ms in waits:
            self.reload(index)
            self.look(index)
            self.start(index, again=False)
            self.wait(ms)
            self.answer(index, side)

    @precondition(lambda self: self.visitors)
    @rule(index=tokens, late=st.booleans(), others=st.integers(0, 4))
    def fall_asleep(self, index, late, others):
        """Wake up in the last millisecond of the place's time, or in the first one after it; meanwhile others came."""
        visitor = self.pick(index)
        self.clock.advance(max(0, visitor.touched + IDLE_MS - 1 + late - self.clock()))
        for _ in range(others):
            self.enrol()
        self.start(index, again=False)
        self.reload(index)

    @rule(ms=st.sampled_from([1, 1000, LINGER_MS, IDLE_MS]))
    def wait(self, ms):
        self.clock.advance(ms)

    @invariant()
    def one_row_a_trial(self):
        if not hasattr(self, "visitors"):
            return
        with self.database.read() as db:
            stored = dict(
                db.execute(
                    select(Trial.session_id, func.count(Response.id)).join(Trial.response).group_by(Trial.session_id)
                ).all()
            )
            live = Counter(db.scalars(select(Session.slot_id).where(Session.state.in_(("active", "finished")))))
            free = db.scalars(select(PlanSlot.id).where(PlanSlot.is_free)).all()
            places = db.scalars(select(PlanSlot.id)).all()
        assert sorted(stored.values()) == sorted(len(v.answered) for v in self.visitors if v.answered)
        assert all(count == 1 for count in live.values())
        assert sorted([*live, *free]) == sorted(places)

    @invariant()
    def balanced_once_complete(self):
        if not hasattr(self, "visitors") or sum(map(self.counts, self.visitors)) < 4:
            return
        query = select(Stimulus.image_id, Stimulus.model, PlanTrial.real_side).select_from(Response)
        query = query.join(Response.trial).join(Trial.planned).join(PlanTrial.stimulus)
        query = query.join(Session, Trial.session_id == Session.id).join(PlanSlot, Session.slot_id == PlanSlot.id)
        with self.database.read() as db:
            rows = db.execute(query.where(Session.state == "finished", Stimulus.kind == "test")).all()
        assert set(Counter((image, model) for image, model, _ in rows).values()) == {1}
        assert len(rows) == 2 * SPEC.images
        assert Counter(side for *_, side in rows) == {"left": 4, "right": 4}


StudyMachine.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=50,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
TestStudyMachine = StudyMachine.TestCase
