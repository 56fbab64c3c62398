"""The researcher's preview: all of a study, and not a byte of it in the study's data."""

import random
import re
import tempfile
from dataclasses import replace

import numpy as np
import pytest

from study_app.bots import Bot, Subject, separate
from study_app.noise import decode
from study_app.pack import Pack
from study_app.preview import PLACES, for_preview
from study_app.recruitment import Codes, Recruitment
from tests.study_app.small_study import everything, make_app, open_study, small_spec

PASSWORD = "correct horse battery"
BANNER = "Preview: nothing is recorded as data."
PROLIFIC = Recruitment("prolific", codes=Codes("DONE1", "FAIL2"))


@pytest.fixture
def app(clock, url, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    app = make_app(url, clock, STARTS_PER_HOUR=1)
    app.extensions["study_accounts"].set_password("ada", PASSWORD)
    yield app
    for name in ("study_service", "study_preview"):
        app.extensions[name].database.engine.dispose()


def draft(app, pack, spec, slug="study"):
    source = Pack(pack)
    app.extensions["study_admin"].create(slug, spec, ["sr3"], source.pairs(spec, source.slugs(["sr3"])))


def researcher(app, clock, slug="study"):
    """Who looks at the preview, logged in."""
    client = app.test_client()
    token = re.search(r'name="csrf" value="([^"]+)"', client.get("/admin/login").text)[1]
    client.post("/admin/login", data={"name": "ada", "password": PASSWORD, "csrf": token})
    return Subject(client, f"/admin/{slug}/preview", clock, random.Random(0))


@pytest.mark.parametrize("recruitment", [PROLIFIC, Recruitment("mturk"), Recruitment("invited")])
def test_a_draft_can_be_taken_to_its_end_and_nothing_of_it_is_data(app, clock, pack, recruitment):
    draft(app, pack, small_spec(recruitment=recruitment))
    ada = researcher(app, clock)
    before = everything(app.config["DATABASE_URL"])
    entry = ada.enter()
    assert BANNER in entry.text and "frame-ancestors 'none'" in entry.headers["Content-Security-Policy"]
    assert ada.start().status_code == 201 and BANNER in ada.client.get(f"{ada.base}/run").text
    seen = []

    def choose(trial):
        seen.append({place: decode(png) for place, png in separate(ada.fetch(trial)).items()})
        return "left"

    assert ada.take(choose)
    done = ada.client.get(f"{ada.base}/done")
    assert BANNER in done.text and 'id="completion-code"' in done.text and "externalSubmit" not in done.text
    assert len(seen) == 8
    files = [decode(png) for row in before["stimulus"] for png in row if isinstance(png, bytes) and png]
    for pictures in seen:
        for shown in pictures.values():
            distances = [int(np.abs(shown.astype(int) - file.astype(int)).max()) for file in files]
            assert min(distances) == 1  # the study's own picture, with its noise
    assert everything(app.config["DATABASE_URL"]) == before


def test_nobody_else_sees_a_preview(app, clock, pack):
    open_study(app, pack, small_spec(), models=["sr3"])
    ada = researcher(app, clock)
    ada.enter()
    ada.start()
    trial = ada.upcoming()["window"][0]
    stranger = Subject(app.test_client(), ada.base, clock, random.Random(1))
    assert (stranger.enter().status_code, stranger.enter().location) == (303, "/admin/login")
    theirs = (
        "/run",
        "/done",
        "/declined",
        "/api/next",
        f"/i/{trial['token']}",
    )
    assert {stranger.client.get(ada.base + path).status_code for path in theirs} == {401}
    assert stranger.start().status_code in (401, 403)
    assert ada.client.get(f"/s/study/i/{trial['token']}").status_code == 404
    subject = Bot(app, "study", clock, random.Random(2))
    assert BANNER not in subject.enter().text and subject.start().status_code == 201
    assert app.test_client().get("/s/study").status_code == 200


def test_each_look_begins_anew_and_follows_the_draft(app, clock, pack, tmp_path):
    """More looks than a copy has places; then another draft of the same name."""
    draft(app, pack, small_spec())
    ada = researcher(app, clock)
    for _ in range(PLACES + 2):
        assert ada.enter().status_code == 200 and ada.start().status_code == 201
        assert ada.upcoming()["done"] == 0
    clock.advance(1000)
    draft(app, pack, small_spec(title="Faces", catch=0, catch_pass=0))
    assert "<title>Faces</title>" in ada.enter().text
    ada.start()
    assert ada.upcoming()["total"] == 6
    assert ada.client.get("/admin/other/preview").status_code == 404
    assert oct(next(tmp_path.glob("study-preview-*")).stat().st_mode)[-3:] == "700"


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({}, 12),
        ({"images": 9, "per_subject": 6, "target": 60, "mode": "within"}, 18),
        ({"images": 14, "target": 70}, 14),
    ],
)
def test_a_copy_is_balanced_and_small(changes, target):
    spec = small_spec(**changes)
    copy = for_preview(spec, ["a", "b", "c"])
    copy.check_models(["a", "b", "c"])  # raises where it is not
    assert copy == replace(spec, target=target)


def test_the_login_leads_to_it_and_the_admin_pages_do(app, clock, pack):
    draft(app, pack, small_spec())
    client = app.test_client()
    page = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
    for path, accept in (("/admin/study/preview", page), ("/admin/study/images/1/real.png", "image/png,*/*;q=0.8")):
        assert client.get(path, headers={"Accept": accept}).location == "/admin/login"
    token = re.search(r'name="csrf" value="([^"]+)"', client.get("/admin/login").text)[1]
    sent = {"name": "ada", "password": PASSWORD, "csrf": token}
    assert client.post("/admin/login", data=sent | {"password": "wrong"}).status_code == 403
    reply = client.post("/admin/login", data=sent, follow_redirects=True)
    assert (reply.request.path, reply.status_code) == ("/admin/study/preview", 200) and BANNER in reply.text
    page = researcher(app, clock).client.get("/admin/study")
    assert 'href="/admin/study/preview"' in page.text
