"""The study in a real browser, against the real server: what people may do to it, and what is stored then."""

import contextlib
import io
import itertools
import re
import tempfile
from dataclasses import replace
from urllib.parse import parse_qs

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from study_app.models import Answer, FurtherChoice, PlanTrial, Response, Session, Trial
from study_app.recruitment import Codes, Recruitment
from study_app.spec import AROUND, GAP, MARGIN, Consent, Criterion, Question
from tests.study_app.browsing import EXPOSURE, QUESTIONS, SPEC, agree, answer, find, finish, give, join, state, until
from tests.study_app.small_study import everything

FRAME = 1000 / 60
TRIALS = 5
# By what a person does, what is stored.
WAYS = {
    "f": ("left", "key"),
    "ArrowLeft": ("left", "key"),
    "ArrowRight": ("right", "key"),
    "click right": ("right", "mouse"),
    "focus right": ("right", "key"),
}


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


REQUESTS = {"next": "/api/next", "picture": "/i/", "begin": "/api/trials/.*/start", "answer": "/response"}
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
    for loaded in (6, 9, 12, 12):
        state(page, "response")
        page.wait_for_function(LOADED, arg=loaded)
        give(page, "f")
        page.wait_for_selector("#trial[data-state=response]", state="detached")
    find(page, "#questions")
    trial = ["begin", *3 * ["picture"], "answer"]
    assert calls == [(kind, 200) for kind in ["next", *3 * ["picture"], *3 * trial, "begin", "answer"]]


def test_keys_during_the_exposure_are_counted_and_not_taken(serve, visit):
    server, page = serve(exposures_ms=(900,)), visit()
    join(page, server)
    page.click("#instructions button")
    state(page, "exposure")
    for key in ("f", "ArrowRight", "x"):
        page.keyboard.press(key)
    assert until(page)
    assert not server.responses()
    give(page, "j")
    state(page, "feedback")
    [(_, response)] = server.responses()
    assert (response["early_attempts"], response["choice"]) == (2, "right")


def test_a_reload_goes_on_at_the_same_trial(serve, visit):
    server, page = serve(exposures_ms=(600,)), visit()
    join(page, server)
    page.reload()
    answer(page)
    for moment in ("exposure", "response"):
        until(page, moment)
        page.reload()
        find(page, "#welcome-back")
        answer(page)
    assert_complete(server, finish(page))
    assert [trial["showings"] for trial, _ in server.responses()] == [1, 2, 2, 1, 1]
    assert server.events().count("reload") == 3


def test_answers_wait_for_the_connection(serve, visit):
    server, page = serve(), visit()
    join(page, server)
    answer(page)
    until(page)
    page.context.set_offline(True)
    give(page, "j")
    find(page, "p.connection")
    assert len(server.responses()) == 1
    page.context.set_offline(False)
    state(page, "response")
    assert not page.locator("p.connection:visible").count()
    assert_complete(server, finish(page))
    assert server.responses()[1][1]["choice"] == "right"


def test_an_answer_whose_acknowledgement_is_lost_is_stored_once(serve, visit):
    server, page = serve(), visit()
    join(page, server)
    attempts = []

    def lose(route):
        attempts.append(route.request.post_data)
        if len(attempts) == 1:
            route.fetch()  # the server has it
        if len(attempts) <= 2:
            route.abort()
        else:
            route.continue_()

    page.route("**/response", lose)
    answer(page)
    state(page, "feedback")
    assert len(attempts) == 3 and len(set(attempts)) == 1
    assert len(server.responses()) == 1


def test_an_answer_that_was_not_sent_survives_a_reload(serve, visit):
    server, page = serve(), visit()
    join(page, server)
    answer(page)
    until(page)
    page.context.route("**/response", lambda route: route.abort())
    give(page, "j")
    find(page, "p.connection")
    page.on("dialog", lambda dialog: dialog.accept())  # "leave the page?"
    page.reload()
    find(page, "p.connection")
    page.context.unroute("**/response")
    find(page, "#welcome-back")
    assert [response["choice"] for _, response in server.responses()] == ["left", "right"]


def test_too_early_by_the_servers_clock_is_sent_again(serve, visit):
    server, page = serve(), visit()
    join(page, server)
    refusal = {"error": "too_early", "message": "Too early.", "retry_after_ms": 300}
    page.route("**/response", lambda route: route.fulfill(status=409, json=refusal), times=1)
    answer(page)
    state(page, "feedback")
    assert len(server.responses()) == 1
    assert not page.locator("p.connection:visible").count()


def test_a_failure_of_the_servers_own_is_told_and_the_answer_kept(serve, visit):
    server, page = serve(), visit()
    join(page, server)
    failure = {"error": "internal", "message": "The server could not do this."}
    page.route("**/response", lambda route: route.fulfill(status=500, json=failure), times=1)
    answer(page, "j")
    find(page, "#problem")
    assert "The server could not do this." in page.inner_text("#problem") and not server.responses()
    assert not page.locator("p.connection:visible").count()
    page.click("#problem button.main")
    assert until(page)
    assert [response["choice"] for _, response in server.responses()] == ["right"]


def test_two_tabs_answer_a_trial_once(serve, visit):
    server, first = serve(), visit()
    join(first, server)
    answer(first)
    until(first)
    second = first.context.new_page()  # comes to the front; a tab behind it gets no frames
    second.goto(f"{server.url}/run")
    answer(second, "f")
    first.bring_to_front()
    give(first, "j")  # the same trial
    until(first)
    assert [response["choice"] for _, response in server.responses()] == ["left", "left"]
    answer(first)
    second.bring_to_front()
    assert_complete(server, finish(second))
    first.bring_to_front()
    if until(first):
        give(first, "f")
    find(first, "#completion-code")


def test_back_and_forward(serve, visit):
    server, page = serve(), visit()
    page.goto("about:blank")
    agree(page, server)
    answer(page)
    page.go_back()
    assert page.url == "about:blank"
    page.go_forward()
    find(page, "#welcome-back")
    answer(page)
    page.goto(server.url)  # the first page leads back into the session
    find(page, "#welcome-back")
    assert [trial["showings"] for trial, _ in server.responses()] == [1, 1]


def test_the_code_is_copied_by_a_button(serve, visit):
    scale = Question("where", "How sure?", "scale", ("not at all", "very"), required=True)
    server = serve(questions=(replace(QUESTIONS[0], required=True), scale))
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    join(page, server)
    while until(page):
        give(page, "f")
    page.locator("button.main:visible").click()
    assert not page.evaluate("document.querySelector('#questions form').checkValidity()")  # the scale is not answered
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


@pytest.mark.parametrize("is_touched", [False, True])
def test_a_touch_screen_is_told_of_taps(serve, visit, is_touched):
    server, page = serve(), visit(has_touch=is_touched, is_mobile=is_touched)
    join(page, server)
    shown = page.inner_text("#instructions")
    assert ("Tap the button" in shown) == is_touched and ("Press F" in shown) != is_touched


def test_a_small_window_never_comes_to_the_consent(serve, visit):
    server, page = serve(task=1), visit(viewport={"width": 880, "height": 800})
    page.goto(server.url)
    find(page, "#too-small")
    assert page.inner_text("[data-text=needed]") == "900 × 600"
    assert not page.locator("#consent:visible").count() and not server.query(select(Session.id))
    page.set_viewport_size({"width": 1000, "height": 700})
    find(page, "#consent")


@pytest.mark.parametrize("dpr", [1, 1.25, 1.5, 2])
def test_server_and_browser_need_the_same_window(serve, visit, dpr):
    server, page = serve(), visit(device_scale_factor=dpr)
    page.goto(server.url)
    for task, side, zoom, smallest in itertools.product((1, 2), (64, 201), (1, 3, 4), ((300, 200), (1000, 900))):
        spec = replace(SPEC, task=task, zoom=zoom, min_viewport=smallest)
        found = page.evaluate(
            "async (study) => (await import('/static/device.js')).neededWindow(study)",
            {"sideBySide": spec.side_by_side, "gap": GAP, "margin": MARGIN, "around": AROUND, "zoom": zoom}
            | {"width": side, "height": side + 10, "viewportW": smallest[0], "viewportH": smallest[1]},
        )
        assert (found["width"], found["height"]) == spec.needed_window(side, side + 10, dpr)


def test_the_screen_is_filled_until_somebody_leaves_it(serve, visit):
    server, page = serve(fullscreen=True), visit()
    join(page, server)
    answer(page)
    assert page.evaluate("document.fullscreenElement !== null")
    page.evaluate("document.exitFullscreen()")
    page.wait_for_function("document.fullscreenElement === null")
    assert finish(page)  # nothing stands in the way, and nobody is asked again
    assert [response["fullscreen"] for _, response in server.responses()] == [True] + 4 * [False]
    assert [event for event in server.events() if event.startswith("full")] == ["fullscreen", "fullscreen_left"]


@pytest.mark.parametrize("breaks_it", ["= undefined", "= () => Promise.reject(new TypeError('no'))"])
def test_who_does_not_let_the_screen_be_filled_goes_on(serve, visit, breaks_it):
    server, page = serve(fullscreen=True), visit()
    page.add_init_script(f"Element.prototype.requestFullscreen {breaks_it}")
    join(page, server)
    answer(page)
    page.reload()
    answer(page)
    assert finish(page)
    events = [event for event in server.events() if event.startswith("full")]
    assert events == 2 * ["fullscreen_refused"]  # the start of each page asks


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


def test_a_window_made_small_waits(serve, visit):
    server, page = serve(), visit()
    join(page, server)
    page.set_viewport_size({"width": 500, "height": 800})
    page.click("#instructions button")
    find(page, "#too-small")
    page.set_viewport_size({"width": 1280, "height": 800})
    answer(page)
    state(page, "feedback")
    assert server.responses()[0][0]["showings"] == 1


@pytest.mark.parametrize(("dpr", "k"), [(1, 4), (1.25, 5), (2, 8)])
def test_the_screen_shows_the_pixels_of_the_file(serve, visit, dpr, k):
    server, page = serve(task=1, exposures_ms=(3000,)), visit(device_scale_factor=dpr)
    join(page, server)
    with page.expect_response("**/api/next") as reply:
        page.reload()
    places = reply.value.json()["window"][0]["pictures"]
    page.locator("button.main:visible").click()
    state(page, "exposure")
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    boxes = {place: page.locator(f"[data-slot={place}]").bounding_box() for place in places}
    files = server.files()
    for place, url in places.items():
        left, top = (round(boxes[place][axis] * dpr) for axis in "xy")
        file = Image.open(io.BytesIO(files[url.rsplit("/")[-1]])).resize((64 * k, 64 * k), Image.Resampling.NEAREST)
        assert np.array_equal(shot.crop((left, top, left + 64 * k, top + 64 * k)), file), place


def test_a_hidden_tab_is_recorded_and_the_trial_goes_on(serve, visit):
    server, page = serve(exposures_ms=(900,)), visit()
    join(page, server)
    page.click("#instructions button")
    state(page, "exposure")
    for hidden in ("true", "false"):  # the engine that tests use calls a tab visible even when it is not
        page.evaluate(
            f"Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}});"
            "document.dispatchEvent(new Event('visibilitychange')); dispatchEvent(new Event('blur'))"
        )
        page.wait_for_timeout(150)
    answer(page)
    state(page, "feedback")
    [(_, response)] = server.responses()
    assert 150 <= response["hidden_ms"] <= 600 and response["blur_count"] == 2 and not response["timing_ok"]


def test_a_stalled_page_is_flagged(serve, visit):
    server, page = serve(exposures_ms=(900,)), visit()
    join(page, server)
    page.click("#instructions button")
    state(page, "exposure")
    page.evaluate("() => { for (const end = performance.now() + 200; performance.now() < end; ); }")
    answer(page)
    state(page, "feedback")
    [(_, response)] = server.responses()
    assert response["frame_max_gap_ms"] > 150 and not response["timing_ok"]
    assert response["n_frames"] < response["exposure_ms"] / response["frame_median_ms"] - 8  # what was dropped


def test_a_pause_before_the_pictures_does_not_shorten_them(serve, visit):
    server, page = serve(fixation_ms=100), visit()
    join(page, server)
    page.evaluate(
        """() => new MutationObserver(() => {
          if (document.getElementById("trial").dataset.state !== "fixation") return;
          requestAnimationFrame(() => { for (const end = performance.now() + 600; performance.now() < end; ); });
        }).observe(document.getElementById("trial"), { attributes: true, attributeFilter: ["data-state"] })"""
    )
    answer(page)
    state(page, "feedback")
    [(trial, response)] = server.responses()
    assert_measured(trial, response, server.spec)


def test_a_picture_that_fails_is_fetched_again_or_the_failure_shown(serve, visit):
    server, page = serve(), visit()
    page.route("**/i/*", lambda route: route.abort(), times=2)
    join(page, server)
    answer(page)
    page.route("**/i/*", lambda route: route.fulfill(status=404))
    page.reload()
    page.click("#welcome-back button")
    find(page, "#problem")
    assert "404" in page.inner_text("#problem")
    page.unroute("**/i/*")
    page.click("#problem button")
    answer(page)
    until(page)
    assert len(server.responses()) == 2


def test_a_lost_session_says_so(serve, visit):
    server, page = serve(), visit()
    join(page, server)
    answer(page)
    until(page)
    page.context.clear_cookies()
    give(page, "f")
    find(page, "#session-over")
    assert "You are not taking part in this study" in page.inner_text("#session-over")
    page.reload()
    assert page.locator("h1").inner_text()
    page.click("main a")
    find(page, "#consent")


@pytest.mark.parametrize(("width", "text"), [(1280, 200), (360, 100)])
def test_large_text_and_narrow_screens_fit(serve, visit, width, text):
    small = {"zoom": 1, "min_viewport": (304, 270)} if width < 900 else {}
    server, page = (
        serve(task=1, language="de", answers=(), consent=Consent(), **small),
        visit(viewport={"width": width, "height": 800}),
    )

    def assert_no_overflow():
        page.add_style_tag(url="/large.css")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for button in page.locator("button:visible").all():
            box = button.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width

    css = f"html {{ font-size: {text}% }}"
    page.route("**/large.css", lambda route: route.fulfill(body=css, content_type="text/css"))
    page.goto(server.url)
    find(page, "#consent")
    assert_no_overflow()
    agree(page, server)
    assert_no_overflow()
    until(page)
    assert_no_overflow()


SIMULATED = """async ([hz, jitter, duration]) => {
  const { expose } = await import("/static/exposure.js");
  let now = 1000, shownAt = null, hiddenAt = null, changed = null;
  const frame = 1000 / hz;
  const nextFrame = async () => {
    now += frame * (1 + jitter * (Math.random() < 0.02 ? 3 : 0));
    if (changed) changed();  // what was changed in the last frame is on screen from this one on
    changed = null;
    return now;
  };
  const stage = {
    show: () => { changed = () => { shownAt = now; }; },
    hide: () => { changed = () => { hiddenAt = now; }; },
  };
  const timing = await expose(stage, duration, frame, nextFrame);
  return { ...timing, shownAt, hiddenAt };
}"""


def test_the_exposure_ends_at_the_nearest_frame(serve, visit):
    server, page = serve(), visit()
    page.goto(server.url)
    for hz in (50, 59.94, 60, 75, 90, 120, 144, 165, 240):
        for duration in (200, 250, 1000, 3000, 6000, 12000):
            timing = page.evaluate(SIMULATED, [hz, 0, duration])
            assert (timing["shownAt"], timing["hiddenAt"]) == (timing["t_on"], timing["t_off"])
            assert abs(timing["exposure_ms"] - duration) <= 500 / hz + 1e-6
            assert timing["n_frames"] == round(timing["exposure_ms"] * hz / 1000)
            assert timing["frame_max_gap_ms"] == pytest.approx(1000 / hz)


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
