"""A study that is served to a real browser, and what people do there."""

import contextlib

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import TimeoutError
from sqlalchemy import select
from werkzeug.serving import make_server

from study_app import create_app
from study_app.models import Event, PlanTrial, Response, Session, Stimulus, Trial
from study_app.noise import decode, noisy
from study_app.pack import Pair, encode, same_length
from study_app.spec import Matchup, Question, Spec

EXPOSURE = 200  # ms
FRAME = 1000 / 60
TRIALS = 5
QUESTIONS = (Question("how", "What did you look for?"), Question("where", "Where?", "choice", ("here", "there")))
SPEC = Spec(
    "Pictures",
    2,
    images=2,
    per_subject=2,
    practice=1,
    catch=2,
    catch_pass=0,
    exposures_ms=(EXPOSURE,),
    fixation_ms=100,
    zoom=4,
    questions=QUESTIONS,
)


def picture(rng):
    return Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))


def pairs(spec):
    rng = np.random.default_rng(0)
    for kind, count in (("practice", spec.practice), ("test", spec.images), ("catch", spec.catch)):
        for number in range(count):
            files = same_length(encode(picture(rng)) for _ in range(spec.side_by_side))
            middle = files[2] if spec.task == 1 else None
            shown = Matchup("") if kind == "catch" else spec.matchups(["m", "n"][: spec.side_by_side])[0]
            yield Pair(f"{kind}{number}", kind, number, shown.model, 64, 64, *files[:2], middle, rival=shown.rival)


class Server:
    """A running study in a database of its own."""

    def __init__(self, folder, spec):
        url = f"sqlite:///{folder / 'study.sqlite'}"
        self.app = create_app({"DATABASE_URL": url, "SECRET_KEY": "x" * 32, "DURABLE": False})
        self.admin = self.app.extensions["study_admin"]
        self.open("study", spec)
        self.spec = spec
        self.server = make_server("127.0.0.1", 0, self.app, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.port}/s/study"

    def open(self, slug, spec):
        self.admin.create(slug, spec, ["m"] if spec.compare == "real" else ["m", "n"], pairs(spec))
        self.admin.freeze(slug, salt="0" * 32)
        self.admin.move(slug, "run")

    def query(self, *statement):
        with self.app.extensions["study_database"].read() as db:
            return [tuple(row) for row in db.execute(*statement)]

    def responses(self):
        """Answered trials in their order: (trial, response), as dictionaries."""
        query = select(Trial, Response).join(Trial.response).join(Trial.planned).order_by(PlanTrial.idx)
        with self.app.extensions["study_database"].read() as db:
            return [
                tuple({c.key: getattr(row, c.key) for c in row.__table__.columns} for row in rows)
                for rows in db.execute(query)
            ]

    def events(self):
        return [type_ for (type_,) in self.query(select(Event.type).order_by(Event.seq))]

    def files(self):
        """By trial token, the PNG files that the server has for it, by place."""
        query = select(Trial, PlanTrial.real_side, Stimulus).join(Trial.planned).join(PlanTrial.stimulus)
        noise = self.app.extensions["study_keys"]
        with self.app.extensions["study_database"].read() as db:
            found = {}
            for trial, side, stimulus in db.execute(query):
                pair = {"left": stimulus.other_png, "right": stimulus.other_png, side: stimulus.real_png}
                shown = {
                    place: noisy(decode(png), self.spec.noise, noise.hash("noise", getattr(trial, f"{place}_token")))
                    for place, png in pair.items()
                }
                found[trial.token] = shown | ({"middle": stimulus.middle_png} if stimulus.middle_png else {})
            return found


FOUND = """(selector) => [...document.querySelectorAll(selector)].find(
  (element) => element.checkVisibility({ visibilityProperty: true }))"""


def find(page, selector):
    """The first visible element, looked for in every frame; Playwright's own waiting looks twice a second."""
    return page.wait_for_function(FOUND, arg=selector).as_element()


def until(page, state="response"):
    """Through notices and feedback up to that state of a trial; False when the trials are over."""
    while True:
        found = find(page, f"#trial[data-state={state}], button.main, #completion-code")
        tag, section = found.evaluate("element => [element.tagName, element.closest('section').id]")
        if tag == "SECTION":
            return True
        if tag == "P" or section == "questions":
            return False
        with contextlib.suppress(TimeoutError):  # it may be gone by now
            found.click(timeout=500)


def agree(page, server):
    page.goto(server.url)
    page.click("#agree")
    find(page, "#instructions")


JOIN = """async ({ base, consentSha256 }) => {
  const headers = { "X-CSRF": document.querySelector("meta[name=csrf]").content, "Content-Type": "application/json" };
  const viewport = { viewport_w: innerWidth, viewport_h: innerHeight, dpr: devicePixelRatio };
  const body = JSON.stringify({ consent_sha256: consentSha256, ...viewport, frame_ms: 16.7, touch: false });
  return (await fetch(`${base}/start`, { method: "POST", headers, body })).status;
}"""


def join(page, server):
    """`agree` without the second that the frame rate takes."""
    page.goto(server.url)
    assert page.evaluate(JOIN, {"base": "/s/study", "consentSha256": server.spec.consent.sha256}) == 201
    page.goto(f"{server.url}/run")
    find(page, "#instructions")


def state(page, name):
    find(page, f"#trial[data-state={name}]")


def give(page, way):
    if way.startswith("click"):
        page.click(f"[data-choice={way.split()[1]}]")
    elif way.startswith("focus"):
        page.focus(f"[data-choice={way.split()[1]}]")
        page.keyboard.press("Enter")
    else:
        page.keyboard.press(way)


def answer(page, way="f"):
    assert until(page)
    give(page, way)
    page.wait_for_selector("#trial[data-state=response]", state="detached")


def finish(page, way="f"):
    """Answers what is left, then the questions; returns the completion code."""
    while until(page):
        give(page, way)
    page.fill("textarea[name=how]", "=sharpness")
    page.check("input[value=there]")
    page.locator("button.main:visible").click()
    return page.inner_text("#completion-code")


def assert_complete(server, code):
    """One finished session with every trial answered once, in order, and nothing wrong in the browser."""
    assert server.query(select(Session.state, Session.completion_code)) == [("finished", code)]
    assert len(server.responses()) == TRIALS == len(server.query(select(Trial.id)))
    assert "error" not in server.events()


def assert_measured(trial, response, spec):
    assert trial["showings"] == 1 and response["timing_ok"]
    assert abs(response["exposure_ms"] - EXPOSURE) <= 50
    assert response["exposure_ms"] == pytest.approx(response["t_off"] - response["t_on"])
    assert response["frame_median_ms"] == pytest.approx(FRAME, abs=2)
    assert response["n_frames"] == pytest.approx(response["exposure_ms"] / FRAME, abs=3)
    assert response["frame_median_ms"] <= response["frame_max_gap_ms"] <= 100
    seen = response["rt_from_onset_ms"] - response["rt_ms"]  # pictures and mask
    assert response["exposure_ms"] + spec.mask_ms - 1 <= seen <= response["exposure_ms"] + spec.mask_ms + 100
    assert trial["started_at"] < response["received_at"] - EXPOSURE
    sizes = {"natural_w": 64, "natural_h": 64, "css_w": 256, "css_h": 256, "dpr": 1}
    assert {name: response[name] for name in sizes} == sizes
    assert (response["viewport_w"], response["viewport_h"], response["fullscreen"]) == (1280, 800, False)
    assert response["hidden_ms"] == response["blur_count"] == response["early_attempts"] == 0
    assert 0 < response["decode_ms"] < 1000
