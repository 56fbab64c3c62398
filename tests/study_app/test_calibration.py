"""Pixels a millimetre, by a card held against the screen: in the session's device, and with it gone."""

import csv
import io

import pytest
from sqlalchemy import select

from study_app import bodies, export
from study_app.models import Participant, Session
from study_app.refusal import RefusedError
from tests.study_app.browsing import find

CARD_MM = (85.60, 53.98)  # ISO/IEC 7810, ID-1


def frame(page):
    return page.locator(".frame").bounding_box()


def to_the_card(page, server):
    page.goto(server.url)
    page.click("#agree")
    find(page, "#calibration")


def stored(server):
    [row] = csv.DictReader(io.StringIO(export.sessions_csv(server.app.extensions["study_database"], "study")))
    return row["px_per_mm"]


def drag_corner(page, by):
    box = page.locator(".corner").bounding_box()
    x, y = box["x"] + box["width"] - 1, box["y"] + box["height"] - 1
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by[0], y + by[1], steps=4)
    page.mouse.up()


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)])
def test_a_frame_as_large_as_the_card(serve, visit, size):
    """Dragged and then moved by key; a telephone has the card upright. Not without having been touched."""
    page = visit(viewport=dict(zip(("width", "height"), size, strict=True)))
    server = serve(calibration=True, min_viewport=(336, 328), zoom=2)
    to_the_card(page, server)
    assert page.is_disabled("#calibration button.main") and not server.query(select(Session.id))
    upright = size[0] < 600
    long, short = ("height", "width") if upright else ("width", "height")
    drag_corner(page, (0, 120) if upright else (120, 0))
    page.focus("#calibration input")
    before = frame(page)[long]
    page.keyboard.press("ArrowRight")
    box = frame(page)
    assert box[long] == pytest.approx(before + 0.5, abs=0.01)
    assert box[long] / box[short] == pytest.approx(CARD_MM[0] / CARD_MM[1], abs=0.01)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click("#calibration button.main")
    find(page, "#instructions")
    assert float(stored(server)) == pytest.approx(box[long] / CARD_MM[0], abs=0.01)
    [(subject,)] = server.query(select(Participant.code))
    server.app.extensions["study_admin"].delete_participant(subject)
    assert stored(server) == ""


def test_who_has_no_card_goes_on(serve, visit):
    server, page = serve(calibration=True), visit()
    to_the_card(page, server)
    page.set_viewport_size({"width": 1200, "height": 790})  # the consent does not come again
    page.click("#calibration [data-skip]")
    find(page, "#instructions")
    assert stored(server) == ""


def body(px_per_mm):
    device = '"viewport_w": 9, "viewport_h": 9, "dpr": 1, "frame_ms": 16, "touch": false'
    return f'{{"consent_sha256": "x", {device}, "px_per_mm": {px_per_mm}}}'.encode()


def test_a_round_number_and_none_are_numbers_too():
    assert [bodies.read(bodies.Start, body(value)).px_per_mm for value in ("4", "3.78", "null")] == [4, 3.78, None]


@pytest.mark.parametrize("value", ["0.4", "50.5", "1e9", '"4"', "true"])
def test_no_screen_has_such_pixels(value):
    with pytest.raises(RefusedError, match="px_per_mm"):
        bodies.read(bodies.Start, body(value))
