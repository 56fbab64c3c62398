"""Subjects that are programs: they take a study through its real HTTP addresses, with known fool rates and no waiting.

clock = ManualClock()
app = create_app({"CLOCK": clock, "DURABLE": False, "STARTS_PER_HOUR": None, "REQUESTS_PER_SECOND": None})
simulate(app, "demo_task2", {"sr3": 0.475, "bicubic": 0.05}, seed=0, clock=clock, subjects=100)
"""

import io
import random
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from flask import Flask
from sqlalchemy import select

from study_app.browser import Browser
from study_app.clock import ManualClock
from study_app.database import Database
from study_app.models import PlanTrial, Session, Stimulus, Trial
from study_app.signing import hash_token
from study_app.web import COOKIE, PICTURES, RECEIPT

FRAME_MS = 1000 / 60
SCREEN = {"viewport_w": 1920, "viewport_h": 1080, "dpr": 1.0}
Truth = tuple[str, str, str]  # the real picture's side, kind, model


class Client(Protocol):
    """What sends a bot's requests: Flask's test client, or a Browser."""

    def get(self, path: str, /) -> Any:
        """The reply, with status_code, text and get_json()."""

    def post(self, path: str, /, *, json: Any, headers: Mapping[str, str]) -> Any:
        """The reply to a body."""


class Timer(Protocol):
    """What time does when a bot looks and thinks."""

    def advance(self, ms: float) -> None:
        """Let `ms` milliseconds pass."""


class Subject:
    """What a browser with a person before it does. A reply that cannot be gone on with is an AssertionError.

    `understands`: the right answers of the comprehension check, where the study has one.
    """

    understands: Sequence[str] = ()

    def __init__(self, client: Client, base: str, clock: Timer, rng: random.Random) -> None:
        self.client, self.base, self.clock, self.rng = client, base, clock, rng
        self.csrf = self.consent = self.link = ""

    def enter(self, link: str = "") -> Any:
        """Open the first page by a `link` such as "?PROLIFIC_PID=…", and read from it what a browser's script reads."""
        self.link = link
        reply = self.client.get(self.base + link)
        if reply.status_code == 200:
            self.csrf = _find(r'name="csrf" content="(\w+)"', reply.text)
            self.consent = _find(r'consent-sha256="(\w+)"', reply.text)
        return reply

    def post(self, path: str, body: Any) -> Any:
        """A POST as the page's script sends it."""
        return self.client.post(self.base + path, json=body, headers={"X-CSRF": self.csrf})

    def start(self) -> Any:
        """Agree to take part."""
        device = {**SCREEN, "frame_ms": FRAME_MS, "touch": False}
        return self.post(f"/start{self.link}", {"consent_sha256": self.consent, **device})

    def upcoming(self) -> dict[str, Any]:
        """Where the session stands."""
        return self.client.get(f"{self.base}/api/next").get_json()

    def fetch(self, trial: Mapping[str, Any]) -> Any:
        """The reply with a trial's pictures: `separate` gives them by place."""
        return self.client.get(f"{self.base}/i/{trial['token']}")

    def answer(self, trial: Mapping[str, Any], exposure_ms: int, side: str) -> Any:
        """Look at the pictures of a trial for as long as the study says, and press a button."""
        self.show(trial, self.fetch(trial))
        thinking = self.thinking_ms()
        self.clock.advance(exposure_ms + thinking)
        return self.post(f"/api/trials/{trial['token']}/response", self.measured(trial, exposure_ms, side, thinking))

    def show(self, trial: Mapping[str, Any], pictures: Any) -> Any:
        """Say that the trial begins, with the receipt of its pictures: what `fetch` has returned."""
        body = {"attempt": self.uuid(), "receipt": pictures.headers.get(RECEIPT, "")}
        return self.post(f"/api/trials/{trial['token']}/start", body)

    def stays(self) -> bool:
        """Whether it takes another trial."""
        return True

    def thinking_ms(self) -> float:
        """How long the bot takes to decide; median 665 ms."""
        return self.rng.lognormvariate(6.5, 0.4)

    def measured(self, trial: Mapping[str, Any], exposure_ms: float, side: str, rt_ms: float) -> dict[str, Any]:
        """The body of an answer, timed to a frame."""
        seen = round(exposure_ms / FRAME_MS) * FRAME_MS
        return {
            "client_uuid": self.uuid(),
            "choice": side,
            "input": "key",
            "t_on": 1000.0,
            "t_off": 1000.0 + seen,
            "exposure_ms": seen,
            "n_frames": round(exposure_ms / FRAME_MS),
            "frame_median_ms": FRAME_MS,
            "frame_max_gap_ms": FRAME_MS,
            "hidden_ms": 0,
            "blur_count": 0,
            "rt_ms": rt_ms,
            "rt_from_onset_ms": rt_ms + seen,
            **SCREEN,
            "css_w": trial["width"],
            "css_h": trial["height"],
            "natural_w": trial["width"],
            "natural_h": trial["height"],
            "fullscreen": False,
            "decode_ms": 1.5,
            "early_attempts": 0,
        }

    def comprehend(self, attempts: int) -> None:
        """Answer the questions about the instructions."""
        reply = self.post("/api/comprehension", {"attempt": attempts + 1, "answers": list(self.understands)})
        assert reply.get_json().get("passed"), reply.text

    def take(self, choose: Callable[[Mapping[str, Any]], str], limit: int | None = None) -> bool:
        """Answer every trial, or leave after `limit` of them; returns whether the session is finished."""
        now = self.upcoming()
        if now["state"] == "comprehension":
            self.comprehend(now["attempts"])
            now = self.upcoming()
        while now["state"] == "trials" and self.stays():
            trial = now["window"][0]
            if trial["index"] == limit:
                return False
            reply = self.answer(trial, now["exposure_ms"], choose(trial))
            assert reply.status_code == 200, reply.text
            now = reply.get_json()["next"]
        return self.post("/api/finish", {"answers": {}}).status_code == 200

    def uuid(self) -> str:
        """A UUID from the bot's own random numbers."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))


class Bot(Subject):
    """A subject in the application's own process, whose time is the test's."""

    def __init__(self, app: Flask, slug: str, clock: ManualClock, rng: random.Random) -> None:
        self.browser = app.test_client()
        super().__init__(self.browser, f"/s/{slug}", clock, rng)

    @property
    def token(self) -> str:
        """The cookie's value, without the signature."""
        cookie = self.browser.get_cookie(COOKIE, path=self.base)
        return cookie.value.rpartition(".")[0] if cookie is not None else ""


class Waiting:
    """A clock that moves by itself: `advance` waits."""

    def advance(self, ms: float) -> None:
        """Let `ms` milliseconds pass."""
        time.sleep(ms / 1000)


class HttpBot(Subject):
    """A bot over a network, in everybody's time.

    `acknowledged` holds the side of every answer, by trial token, that the server said it has stored.
    """

    def __init__(self, browser: Browser, slug: str, rng: random.Random, prefix: str = "", pace_s: float = 0.0) -> None:
        super().__init__(browser, f"{prefix}/s/{slug}", Waiting(), rng)
        self.browser, self.pace_s = browser, pace_s
        self.acknowledged: dict[str, str] = {}

    def answer(self, trial: Mapping[str, Any], exposure_ms: int, side: str) -> Any:
        """Look, press a button, and rest for what is left of `pace_s` seconds."""
        end = time.monotonic() + self.pace_s
        reply = super().answer(trial, exposure_ms, side)
        if reply.status_code == 200:
            self.acknowledged[trial["token"]] = side
        self.clock.advance(1000 * max(0.0, end - time.monotonic()))
        return reply


def separate(reply: Any) -> dict[str, bytes]:
    """The PNG files of a reply with a trial's pictures, by place."""
    lengths = [part.split("=") for part in reply.headers[PICTURES].split(", ")]
    stream = io.BytesIO(reply.data)
    return {place: stream.read(int(length)) for place, length in lengths}


def simulate(
    app: Flask,
    slug: str,
    fool_rates: Mapping[str, float],
    seed: int,
    clock: ManualClock,
    subjects: int | None = None,
    drop_outs: float = 0.0,
    catch_rate: float = 1.0,
) -> int:
    """Let bots take the running study `slug` one after the other; returns how many finished.

    In a test trial a bot takes the output of model m with probability `fool_rates[m]`; practice likewise. It is right
    in a catch trial with probability `catch_rate`, and leaves half-way with probability `drop_outs`. Stops when
    `subjects` have finished, or at None when every place is filled. `clock` is the app's own.
    """
    rng = random.Random(seed)
    right = app.extensions["study_service"].overview(slug).spec.comprehension.right
    finished = 0
    while subjects is None or finished < subjects:
        bot = Bot(app, slug, clock, random.Random(rng.getrandbits(64)))
        bot.understands = right
        reply = bot.enter()
        if reply.status_code == 200:
            reply = bot.start()
        if reply.status_code == 503:
            if not _abandoned(app.extensions["study_database"]):
                break
            clock.advance(8 * 24 * 3_600_000)  # beyond every idle_minutes
            continue
        assert reply.status_code == 201, reply.text
        truth = _truth(app.extensions["study_database"], bot.token)
        leaves = bot.rng.random() < drop_outs
        choose = partial(_choose, bot, truth, fool_rates, catch_rate)
        finished += bot.take(choose, len(truth) // 2 if leaves else None)
    return finished


def _choose(
    bot: Bot,
    truth: Mapping[str, Truth],
    fool_rates: Mapping[str, float],
    catch_rate: float,
    trial: Mapping[str, Any],
) -> str:
    real_side, kind, model = truth[trial["token"]]
    fooled = 1 - catch_rate if kind == "catch" else fool_rates[model]
    if bot.rng.random() >= fooled:
        return real_side
    return "right" if real_side == "left" else "left"


def _truth(database: Database, token: str) -> dict[str, Truth]:
    """By trial token what no subject is told."""
    query = select(Trial.token, PlanTrial.real_side, Stimulus.kind, Stimulus.model).join(Trial.planned)
    query = query.join(PlanTrial.stimulus).join(Session, Trial.session_id == Session.id)
    with database.read() as db:
        rows = db.execute(query.where(Session.token_sha256 == hash_token(token)))
        return {token: (side, kind, model) for token, side, kind, model in rows}


def _abandoned(database: Database) -> bool:
    with database.read() as db:
        return db.scalar(select(Session.id).where(Session.state == "active").limit(1)) is not None


def _find(pattern: str, page: str) -> str:
    found = re.search(pattern, page)
    assert found, f"the page has no {pattern}"
    return found[1]
