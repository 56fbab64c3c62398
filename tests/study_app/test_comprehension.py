"""The comprehension check: who has not understood the instructions sees no trial, and nobody gets around it."""

import csv
import io
import random
import tomllib
from collections import Counter
from dataclasses import replace

import pytest
from sqlalchemy import select

from sr3eval.config import from_dict, to_toml
from sr3eval.errors import UserError
from study_app import export
from study_app.bots import Bot, simulate
from study_app.comprehension import Check, Comprehension
from study_app.models import PlanSlot, Session
from study_app.recruitment import Codes, Recruitment
from study_app.spec import Spec
from tests.study_app.browsing import agree, answer, find, finish, state
from tests.study_app.small_study import make_app, open_study, small_spec

CHECKS = (Check("How many pictures?", ("One", "Two"), "Two"), Check("Is there a hurry?", ("Yes", "No", "Both"), "No"))
ASKED = Comprehension(attempts=2, questions=CHECKS)
RIGHT, WRONG = ["Two", "No"], ["Two", "Yes"]


@pytest.fixture
def app(clock, pack, url):
    app = make_app(url, clock)
    open_study(app, pack, small_spec(comprehension=ASKED), models=["sr3"])
    yield app
    app.extensions["study_database"].engine.dispose()


def subject(app, clock, seed=0):
    bot = Bot(app, "study", clock, random.Random(seed))
    bot.enter()
    assert bot.start().status_code == 201
    return bot


def attempt(bot, number, answers):
    return bot.post("/api/comprehension", {"attempt": number, "answers": answers})


def sessions(app):
    return list(csv.DictReader(io.StringIO(export.sessions_csv(app.extensions["study_database"], "study"))))


def test_no_trial_before_it_is_passed(app, clock):
    bot = subject(app, clock)
    assert {key: bot.upcoming()[key] for key in ("state", "attempts", "window")} == {
        "state": "comprehension",
        "attempts": 0,
        "window": [],
    }
    assert bot.post("/api/finish", {"answers": {}}).get_json()["error"] == "trials_missing"
    for answers in (["Two"], ["No", "Two", "No"], []):
        assert attempt(bot, 1, answers).status_code == 400
    assert attempt(bot, 2, RIGHT).status_code == 400  # the first one comes first
    assert bot.upcoming()["attempts"] == 0
    for _ in range(2):  # the second is a repeated request
        assert attempt(bot, 1, WRONG).get_json() == {"passed": False, "left": 1}
    clock.advance(5000)
    for _ in range(2):
        assert attempt(bot, 2, RIGHT).get_json() == {"passed": True, "left": 0}
    assert attempt(bot, 1, WRONG).get_json()["passed"]  # late: it changes nothing
    assert bot.take(lambda trial: "left")
    [row] = sessions(app)
    assert (row["comprehension_attempts"], row["state"] in ("finished", "excluded")) == ("2", True)
    assert row["started_at"] < row["understood_at"] < row["finished_at"]


def test_who_fails_leaves_with_the_failed_code_and_the_place_is_free(app, clock):
    bot = subject(app, clock)
    [slot] = held(app)
    assert not attempt(bot, 1, WRONG).get_json()["passed"]
    for _ in range(2):
        assert attempt(bot, 2, WRONG).get_json() == {"passed": False, "left": 0}
    assert attempt(bot, 3, RIGHT).status_code == 410
    assert bot.upcoming()["state"] == "done" and not held(app)
    page = bot.browser.get("/s/study/done").text
    assert "You cannot take part in this study" in page and "Thank you. In each pair" not in page
    [row] = sessions(app)
    assert (row["state"], row["excluded_reason"], row["comprehension_attempts"]) == (
        "excluded",
        "failed_comprehension",
        "2",
    )
    assert row["completion_code"].startswith("failed-") and row["completion_code"] in page
    assert row["understood_at"] == "" and row["trials_answered"] == "0"
    subject(app, clock, 1)
    assert held(app) == [slot]


def test_the_balance_is_exact_after_failures(app, clock):
    """Who fails leaves no hole: each image is seen as often as planned."""
    for seed in range(3):
        bot = subject(app, clock, seed)
        for number in (1, 2):
            attempt(bot, number, WRONG)
    assert simulate(app, "study", {"sr3": 0.5}, seed=0, clock=clock) == 6
    rows = csv.DictReader(io.StringIO(export.responses_csv(app.extensions["study_database"], "study")))
    views = Counter(row["image_id"] for row in rows if row["kind"] == "test")
    assert len(views) == 8 and set(views.values()) == {3}
    assert Counter(row["excluded_reason"] for row in sessions(app)) == {"failed_comprehension": 3, "": 6}


def held(app):
    with app.extensions["study_database"].read() as db:
        return db.scalars(select(PlanSlot.id).where(~PlanSlot.is_free)).all()


def test_a_service_hears_that_the_checks_failed(clock, pack, tmp_path):
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    prolific = Recruitment("prolific", codes=Codes("DONE1", "FAIL2"))
    open_study(app, pack, small_spec(comprehension=replace(ASKED, attempts=1), recruitment=prolific), models=["sr3"])
    bot = Bot(app, "study", clock, random.Random(0))
    bot.enter("?PROLIFIC_PID=5f3c0a9e8b7d6c5b4a392817&STUDY_ID=s&SESSION_ID=x")
    assert bot.start().status_code == 201
    attempt(bot, 1, WRONG)
    page = bot.browser.get("/s/study/done").text
    assert "FAIL2" in page and "DONE1" not in page
    app.extensions["study_database"].engine.dispose()


def test_in_toml():
    spec = small_spec(comprehension=ASKED)
    assert from_dict(Spec, tomllib.loads(to_toml(spec))) == spec
    for changes, message in (
        ({"right": "Three"}, 'right = "Three" is none of the options'),
        ({"options": ("Two",)}, "two or more different options"),
        ({"options": ("Two", "Two")}, "two or more different options"),
    ):
        with pytest.raises(UserError, match=message):
            replace(CHECKS[0], **changes)
    for attempts in (0, 11):
        with pytest.raises(UserError, match=f"attempts = {attempts}: must be from 1 to 10"):
            Comprehension(attempts)


def choose(page, answers):
    for option in answers:
        page.check(f"#comprehension input[value='{option}']")
    page.click("#comprehension button.main")


def test_in_the_browser(serve, visit):
    """Wrong, read again, a reload, right; then the practice, without the instructions once more."""
    server, page = serve(comprehension=ASKED), visit()
    agree(page, server)
    page.click("#instructions button.main")
    find(page, "#comprehension")
    page.click("#comprehension button.main")  # nothing is chosen: the browser says so
    page.check("input[value=Two]")
    page.click("[data-again]")
    page.click("#instructions button.main")
    assert page.is_checked("input[value=Two]")
    choose(page, WRONG)
    find(page, "#instructions")
    assert "You can answer once more." in page.inner_text("#instructions [role=alert]")
    page.reload()
    page.click("#instructions button.main")
    choose(page, RIGHT)
    state(page, "response")
    answer(page)
    state(page, "feedback")
    assert finish(page)
    assert server.query(select(Session.comprehension_attempts, Session.state)) == [(2, "finished")]
    assert not {"error", "refused"} & set(server.events())


def test_failing_in_the_browser(serve, visit):
    server, page = serve(comprehension=ASKED), visit()
    agree(page, server)
    for _ in range(2):
        page.click("#instructions button.main")
        choose(page, WRONG)
    page.wait_for_url("**/done")
    assert page.inner_text("h1") == "You cannot take part in this study"
