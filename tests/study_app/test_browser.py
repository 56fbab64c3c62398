"""The study in a real browser, against the real server: what people may do to it, and what is stored then."""

import contextlib
import re
import tempfile
from dataclasses import replace
from urllib.parse import parse_qs

import pytest
from sqlalchemy import select

from study_app.models import Answer, FurtherChoice, PlanTrial, Response, Trial
from study_app.recruitment import Codes, Recruitment
from study_app.spec import Criterion, Question
from tests.study_app.browsing import (
    QUESTIONS,
    agree,
    answer,
    assert_complete,
    assert_measured,
    find,
    finish,
    give,
    join,
    state,
    until,
)
from tests.study_app.small_study import everything

# By what a person does, what is stored.
WAYS = {
    "f": ("left", "key"),
    "ArrowLeft": ("left", "key"),
    "ArrowRight": ("right", "key"),
    "click right": ("right", "mouse"),
    "focus right": ("right", "key"),
}


@pytest.mark.parametrize(("task", "mask_ms"), [(1, 100), (2, 0)])
def test_a_whole_session(serve, visit, task, mask_ms):
    server, page = serve(task=task, mask_ms=mask_ms), visit()
    agree(page, server)
    assert page.inner_text("#instructions blockquote") == server.spec.asked[0].question
    for way in WAYS:
        answer(page, way)
    code = finish(page)
    assert_complete(server, code)
    rows = server.responses()
    assert [(response["choice"], response["input"]) for _, response in rows] == list(WAYS.values())
    for trial, response in rows:
        assert_measured(trial, response, server.spec)
    assert set(server.query(select(Answer.question_id, Answer.text))) == {("how", "=sharpness"), ("where", "there")}
    page.go_back()
    page.goto(server.url)
    assert page.inner_text("#completion-code") == code  # whoever has finished comes back to the code


def test_a_tie_and_two_questions_a_pair(serve, visit):
    """By key and by button; a key that has no button does nothing, one pressed twice answers once."""
    criteria = (Criterion("sharper", "Which is sharper?"), Criterion("real", "Which is more real?"))
    server, page = serve(compare="models", criteria=criteria, tie="No difference"), visit()
    join(page, server)
    assert page.locator("#instructions blockquote").all_inner_texts() == [c.question for c in criteria]
    for first, second in (("t", "click tie"), ("ArrowDown", "j"), ("f", "ArrowRight")):
        assert until(page)
        assert page.inner_text("#question") == "Which is sharper?"
        page.keyboard.press("s")
        give(page, first)
        page.keyboard.press("f")
        page.wait_for_function("() => document.querySelector('#question').textContent === 'Which is more real?'")
        state(page, "response")
        give(page, second)
        page.wait_for_selector("#trial[data-state=response]", state="detached")
    assert until(page)  # the last answer is stored
    found = server.query(select(Response.choice, FurtherChoice.criterion, FurtherChoice.choice).join(Response.further))
    assert found == [("tie", "real", "tie"), ("tie", "real", "right"), ("left", "real", "right")]
    assert "refused" not in server.events()


MARKED = (
    "() => [...document.querySelectorAll('.slot')].filter(e => e.querySelector('.mark')?.checkVisibility("
    "{ visibilityProperty: true })).map(e => e.dataset.slot)"
)


@pytest.mark.parametrize("task", [1, 2])
def test_practice_shows_which_it_was_and_the_study_does_not(serve, visit, task):
    """Not before the server has the answer; then for as long as one likes, and in practice alone."""
    server, page = serve(task=task, practice=2), visit()
    join(page, server)
    held = []
    page.route("**/response", lambda route: held.append(route), times=1)
    with page.expect_request("**/response"):
        answer(page, "f")
    assert page.evaluate(MARKED) == [] and page.get_attribute("#trial", "data-state") == "saving"
    held[0].continue_()
    for way in ("f", "j"):
        if way == "j":
            answer(page, way)
        state(page, "feedback")
        index = len(server.responses()) - 1
        [(side,)] = server.query(select(PlanTrial.real_side).join(Trial).where(PlanTrial.idx == index))
        verdict = page.inner_text(".feedback [role=status]")
        assert verdict.startswith("Correct") == (side == {"f": "left", "j": "right"}[way])
        assert verdict.endswith(f"it was the {side} picture.") and page.evaluate(MARKED) == [side]
        assert page.locator(".picture:visible").count() == server.spec.side_by_side
        assert page.locator(".feedback button").evaluate("button => button === document.activeElement")
    answer(page, "f")
    state(page, "fixation")
    assert page.evaluate(MARKED) == [] and not page.locator(".feedback:visible").count()


REQUESTS = {"next": "/api/next", "pictures": "/i/", "begin": "/api/trials/.*/start", "answer": "/response"}


LOADED = "(n) => performance.getEntriesByType('resource').filter(({ name }) => name.includes('/i/')).length === n"


def test_the_next_pictures_come_while_people_think(serve, visit):
    """Not while a pair is shown; and who then answers waits for none, nor for a word of the server on what is next."""
    server, page = serve(task=1, practice=0, breaks=0), visit()
    calls = []

    def note(reply):
        kinds = [(kind, reply.status) for kind, path in REQUESTS.items() if re.search(path, reply.url)]
        calls.extend(kinds)

    page.on("response", note)
    join(page, server)
    page.click("#instructions button.main")
    for loaded in (2, 3, 4, 4):
        state(page, "response")
        page.wait_for_function(LOADED, arg=loaded)
        give(page, "f")
        page.wait_for_selector("#trial[data-state=response]", state="detached")
    find(page, "#questions")
    trial = ["begin", "pictures", "answer"]
    assert calls == [(kind, 200) for kind in ["next", "pictures", *3 * trial, "begin", "answer"]]


def test_the_code_is_copied_by_a_button(serve, visit):
    scale = Question("where", "How sure?", "scale", ("not at all", "very"), required=True)
    server = serve(questions=(replace(QUESTIONS[0], required=True), scale))
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    join(page, server)
    while until(page):
        give(page, "f")
    page.locator("button.main:visible").click()
    told = page.evaluate(
        "[...document.querySelectorAll('#questions :invalid')].map((field) => field.validationMessage)"
    )
    assert "Please answer this question." in told  # in the study's words: the browser may speak another language
    page.check("input[value='4']")
    page.fill("textarea", "  ")  # is no answer
    page.locator("button.main:visible").click()
    page.wait_for_function("document.querySelector('#questions textarea:invalid')?.value === ''")
    page.fill("textarea", " By the edges ")
    refusal = {"error": "bad_request", "message": "Not like that."}
    page.route("**/finish", lambda route: route.fulfill(status=400, json=refusal), times=1)
    page.locator("button.main:visible").click()
    find(page, "#questions .refusal")
    assert page.inner_text("#questions .refusal") == "Not like that." and page.is_checked("input[value='4']")
    page.locator("button.main:visible").click()
    page.click("#copy")
    assert set(server.query(select(Answer.text))) == {("By the edges",), ("4",)}
    assert page.evaluate("navigator.clipboard.readText()") == page.inner_text("#completion-code")


def test_a_researcher_goes_through_the_preview(serve, visit, tmp_path, monkeypatch):
    """From the admin pages, before anybody can take part; on each page it says that nothing is recorded."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server, page = serve(), visit()
    server.app.extensions["study_admin"].move("study", "pause")
    server.app.extensions["study_accounts"].set_password("ada", "correct horse battery")
    page.goto(f"{server.url.removesuffix('/s/study')}/admin/login")
    page.fill("[name=name]", "ada")
    page.fill("[name=password]", "correct horse battery")
    page.click("main button")
    page.click("a[href='/admin/study']")
    before = everything(server.app.config["DATABASE_URL"])
    page.click("text=Preview")

    def assert_banner():
        assert page.inner_text("p.preview").startswith("Preview: nothing is recorded as data.")

    find(page, "#consent")
    assert_banner()
    page.click("#agree")
    find(page, "#instructions")
    answer(page)
    state(page, "feedback")
    assert_banner()
    assert finish(page)
    assert_banner()
    assert everything(server.app.config["DATABASE_URL"]) == before
    page.click("p.preview a")
    assert page.url.endswith("/admin/study")


def test_mturk_frames_the_study_and_gets_the_answer(serve, visit):
    """A worker's page on MTurk's own (simulated) site, the study in its frame, and the form that MTurk waits for."""
    codes = Codes("DONE1", "FAIL2")
    server, page = serve(recruitment=Recruitment("mturk", codes=codes)), visit(viewport={"width": 1400, "height": 1000})
    site = "https://workersandbox.mturk.com"
    link = f"{server.url}?workerId=W1&hitId=H1&assignmentId=A1&turkSubmitTo={site}"
    frame = f'<iframe src="{link}" style="width: 1300px; height: 900px; border: 0"></iframe>'
    submitted = []

    def mturk(route):
        if route.request.method == "POST":
            submitted.append((route.request.url, parse_qs(route.request.post_data)))
        route.fulfill(body="Received" if submitted else frame, content_type="text/html")

    page.route(f"{site}/**", mturk)
    page.set_default_timeout(30_000)  # a page in a page is slow on a busy machine
    page.goto(f"{site}/projects/1")
    [study] = page.main_frame.child_frames
    study.click("#agree")
    find(study, "#instructions")
    code = finish(study, "click left")
    study.click("text=Submit to MTurk")
    study.wait_for_selector("text=Received")
    address, form = submitted[0]
    assert (address, form["assignmentId"]) == (f"{site}/mturk/externalSubmit", ["A1"])
    assert (form["outcome"], form["code"]) == (["complete"], ["DONE1"]) and code == "DONE1"


@pytest.mark.parametrize("source", ["open", "mturk"])
def test_nobody_else_frames_a_study(serve, chromium, source):
    server = serve(recruitment=Recruitment(source))
    link = f"{server.url}?workerId=W1&hitId=H1&assignmentId=A1&turkSubmitTo=https://www.mturk.com"
    frame = f'<iframe src="{link}"></iframe>'
    with contextlib.closing(chromium.new_context()) as context:
        page = context.new_page()
        complaints = []
        page.on("console", lambda message: complaints.append(message.text))
        page.route("https://evil.example/**", lambda route: route.fulfill(body=frame, content_type="text/html"))
        page.goto("https://evil.example/")
        page.wait_for_function("document.querySelector('iframe').contentDocument === null")
    assert any("frame-ancestors" in text for text in complaints)


def test_pages_name_nothing_that_tells_the_pictures_apart(serve, visit):
    server, page = serve(task=1), visit()
    texts = []
    page.on("response", lambda reply: texts.append(reply.text()) if "/i/" not in reply.url else None)
    agree(page, server)
    answer(page)
    state(page, "feedback")
    words = re.compile(r"\b(real|fake|generated|model|ground.truth|gt|hr|practice\d|test\d|catch\d)\b", re.IGNORECASE)
    assert len(texts) > 15
    assert not [word for text in texts for word in words.findall(text)]
