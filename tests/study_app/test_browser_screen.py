"""Screens and windows in a real browser: what fits, what fills the screen, and the pixels that are shown."""

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from study_app.models import Session
from study_app.spec import AROUND, GAP, MARGIN, Consent
from tests.study_app.browsing import SPEC, agree, answer, find, finish, join, state, until


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
    shown = server.files()[reply.value.json()["window"][0]["token"]]
    page.locator("button.main:visible").click()
    state(page, "exposure")
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    boxes = {place: page.locator(f"[data-slot={place}]").bounding_box() for place in shown}
    for place, png in shown.items():
        left, top = (round(boxes[place][axis] * dpr) for axis in "xy")
        file = Image.open(io.BytesIO(png)).resize((64 * k, 64 * k), Image.Resampling.NEAREST)
        assert np.array_equal(shot.crop((left, top, left + 64 * k, top + 64 * k)), file), place


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
