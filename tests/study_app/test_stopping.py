"""Stopping for good: from the trials and between them, by keyboard, asked once more; and what is then told."""

import pytest
from sqlalchemy import select

from study_app.models import Session
from tests.study_app.browsing import answer, find, give, join, state, until

PLACES = ("ready", "response", "feedback", "questions")


def go_to(page, place):
    """Up to that place of a study whose first trial is practice; returns how many answers it takes."""
    if place == "response":
        assert until(page)
        return 0
    answer(page)
    state(page, "feedback")
    if place == "ready":
        page.click(".feedback button")
    elif place == "questions":
        answers = 1
        while until(page):
            give(page, "j")
            answers += 1
        return answers
    find(page, {"ready": "#ready", "feedback": "#trial[data-state=feedback]"}[place])
    return 1


def tab_to(page, selector):
    """With the Tab key alone."""
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} is not reached by the keyboard")


@pytest.mark.parametrize("place", PLACES)
def test_whoever_wants_to_can_stop(serve, visit, place):
    server, page = serve(deletion="delete_answers" if place == "ready" else "keep_answers"), visit()
    join(page, server)
    answers = go_to(page, place)
    tab_to(page, "[data-stop]")
    for ends in (False, True):
        page.keyboard.press("Enter")
        find(page, "#stop")
        for key in ("f", "ArrowRight"):  # no answers: there is a question over the pair
            page.keyboard.press(key)
        if not ends:
            page.keyboard.press("Escape")
            page.wait_for_selector("#stop", state="hidden")
            assert page.evaluate("document.activeElement.matches('[data-stop]')")
    tab_to(page, "#stop [value=stop]")
    page.keyboard.press("Enter")
    page.wait_for_url("**/done")
    assert "You have left the study" in page.inner_text("h1")
    assert ("the answers are kept" in page.inner_text("main")) == (place != "ready")
    assert server.query(select(Session.state, Session.excluded_reason)) == [("withdrew", "withdrew")]
    assert len(server.responses()) == answers
    said = sorted(event for event in server.events() if event.startswith("stop"))  # "close" may come late after Escape
    assert said == ["stop_asked", "stop_asked", "stop_not"]
    page.goto(f"{server.url}/run")
    assert page.url.endswith("/done")


def test_who_does_not_stop_goes_on_with_the_same_trial(serve, visit):
    server, page = serve(), visit()
    join(page, server)
    answer(page)
    assert until(page)
    page.click("#trial [data-stop]")
    page.click("#stop [value=go-on]")
    give(page, "j")
    assert until(page)
    assert [(trial["showings"], row["choice"]) for trial, row in server.responses()] == [(1, "left"), (1, "right")]


def test_an_answer_that_could_not_be_sent_is_forgotten(serve, visit):
    server, page = serve(), visit()
    join(page, server)
    failure = {"error": "internal", "message": "The server could not do this."}
    page.route("**/response", lambda route: route.fulfill(status=500, json=failure))
    answer(page)
    find(page, "#problem")
    assert page.evaluate("localStorage.length") == 1
    page.click("#problem [data-stop]")
    page.click("#stop [value=stop]")
    page.wait_for_url("**/done")
    assert page.evaluate("localStorage.length") == 0 and not server.responses()
