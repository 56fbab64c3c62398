"""What the server answers to what it should not be sent: a status, a line, and nothing written."""

import csv
import io
import itertools
import json
import random
import re

import pytest

from study_app import export, limits, web
from study_app.bots import Bot, _truth
from study_app.clock import ManualClock
from study_app.recruitment import Recruitment
from study_app.signing import Keys
from study_app.spec import QUESTIONS, Question
from tests.study_app.small_study import everything, make_app, open_study, small_spec

START = "/start"
NEXT = "/api/next"
FINISH = "/api/finish"
EVENTS = "/api/events"
RESPONSE = "/api/trials/{0[token]}/response"
BEGIN = "/api/trials/{0[token]}/start"
LATER = "/api/trials/{1[token]}/response"
BEGIN_LATER = "/api/trials/{1[token]}/start"


@pytest.fixture
def site(url, clock, pack):
    app = make_app(url, clock)
    open_study(app, pack, small_spec())
    yield app
    app.extensions["study_database"].engine.dispose()


@pytest.fixture
def bot(site, clock):
    return visitor(site, clock)


@pytest.fixture(scope="module")
def guest(shared_url, pack):
    """One subject for all requests that must change nothing."""
    clock = ManualClock()
    app = make_app(shared_url, clock)
    open_study(app, pack, small_spec())
    yield visitor(app, clock)
    app.extensions["study_database"].engine.dispose()


def visitor(site, clock):
    """A subject in the middle of the first trial."""
    bot = Bot(site, "study", clock, random.Random(0))
    bot.enter()
    assert bot.start().status_code == 201
    bot.window = bot.upcoming()["window"]
    bot.show(bot.window[0], bot.fetch(bot.window[0]))
    clock.advance(3500)
    return bot


def measured(bot, **changes):
    body = {**bot.measured(bot.window[0], 3000, "left", 500.0), **changes}
    return {key: value for key, value in body.items() if value is not ...}


BAD_ANSWERS = [
    {"choice": "middle"},
    {"choice": None},
    {"choice": ...},
    {"rt_ms": ...},
    {"rt_ms": -1},
    {"rt_ms": "500"},
    {"rt_ms": True},
    {"rt_ms": float("nan")},
    {"rt_ms": float("inf")},
    {"rt_ms": 1e15},
    {"decode_ms": 1e15},
    {"rt_ms": 1e300},
    {"rt_ms": 10**400},
    {"n_frames": 1.5},
    {"n_frames": 10**7},
    {"dpr": 0},
    {"t_off": 0},
    {"fullscreen": 1},
    {"client_uuid": "1"},
    {"client_uuid": "\ud800"},
    {"input": "\x00"},
    {"real_side": "left"},
]


@pytest.mark.parametrize("change", BAD_ANSWERS, ids=str)
def test_a_bad_answer_is_refused_whole(guest, shared_url, change):
    before = everything(shared_url)
    reply = guest.post(RESPONSE.format(*guest.window), measured(guest, **change))
    assert (reply.status_code, reply.json["error"]) == (400, "bad_request")
    assert "\n" not in reply.json["message"] and len(reply.json["message"]) <= 200
    assert everything(shared_url) == before


GOOD = {"attempt": "00000000-0000-4000-8000-000000000000"}
DEVICE = {"viewport_w": 300, "viewport_h": 240, "dpr": 2, "frame_ms": 8.3, "touch": False}
# (method, path, what is sent, status, error)
BAD_REQUESTS = [
    ("POST", BEGIN, {}, 400, "bad_request"),
    ("POST", BEGIN, {"attempt": 1}, 400, "bad_request"),
    ("POST", BEGIN, [], 400, "bad_request"),
    ("POST", BEGIN, "null", 400, "bad_request"),
    ("POST", BEGIN, "", 400, "bad_request"),
    ("POST", BEGIN, "{", 400, "bad_request"),
    ("POST", BEGIN, "[" * 16000, 400, "bad_request"),
    ("POST", BEGIN, b"\xff\xfe", 400, "bad_request"),
    ("POST", BEGIN, '{"attempt": ' + "9" * 16000 + "}", 400, "bad_request"),
    ("POST", BEGIN, '"' + "x" * 17000 + '"', 413, "too_large"),
    ("POST", BEGIN_LATER, GOOD, 409, "out_of_order"),
    ("POST", LATER, measured, 409, "out_of_order"),
    ("POST", "/api/trials/short/start", GOOD, 404, "not_found"),
    ("POST", "/api/trials/%00/start", GOOD, 404, "not_found"),
    ("POST", "/api/trials/aaaaaaaaaaaaaaaaaaaaaa/start", GOOD, 404, "not_found"),
    ("POST", "/api/trials/aaaaaaaaaaaaaaaaaaaaaa/response", measured, 404, "not_found"),
    ("GET", "/i/aaaaaaaaaaaaaaaaaaaaaa", None, 404, "not_found"),
    ("GET", "/i/..%2f..%2fetc", None, 404, "not_found"),
    ("GET", BEGIN, None, 405, "not_allowed"),
    ("POST", NEXT, {}, 405, "not_allowed"),
    ("POST", FINISH, {"answers": {}}, 409, "trials_missing"),
    ("POST", FINISH, {"answers": {"how": 1}}, 400, "bad_request"),
    ("POST", FINISH, {"answers": {"how": "x" * 2001}}, 400, "bad_request"),
    ("POST", FINISH, {"answers": []}, 400, "bad_request"),
    ("POST", EVENTS, {"events": [{"seq": 1, "type": "x" * 33, "t": 0}]}, 400, "bad_request"),
    ("POST", EVENTS, {"events": [{"seq": -1, "type": "x", "t": 0}]}, 400, "bad_request"),
    ("POST", EVENTS, {"events": [{"seq": 2**60, "type": "x", "t": 0}]}, 400, "bad_request"),
    ("POST", EVENTS, {"events": [{"seq": i, "type": "x", "t": 0} for i in range(101)]}, 400, "bad_request"),
    ("POST", EVENTS, {"events": [[[[]]]]}, 400, "bad_request"),
    ("POST", START, {"consent_sha256": "x"}, 400, "bad_request"),
    ("POST", START, {**DEVICE, "consent_sha256": "x", "dpr": 0}, 400, "bad_request"),
]


@pytest.mark.parametrize(("method", "path", "sent", "status", "error"), BAD_REQUESTS)
def test_a_bad_request_is_refused_and_writes_nothing(guest, shared_url, method, path, sent, status, error):
    body = sent(guest) if callable(sent) else sent
    data = body if isinstance(body, str | bytes | None) else json.dumps(body)
    before = everything(shared_url)
    reply = guest.client.open(
        "/s/study" + path.format(*guest.window),
        method=method,
        data=data,
        content_type="application/json",
        headers={"X-CSRF": guest.csrf},
    )
    assert (reply.status_code, reply.json["error"]) == (status, error)
    assert everything(shared_url) == before


def test_where_a_post_is_from_is_checked(site, bot, url):
    before = everything(url)
    path, body = "/s/study" + RESPONSE.format(*bot.window), measured(bot)
    for headers in ({}, {"X-CSRF": "0" * 64}, {"X-CSRF": "é"}):
        assert bot.client.post(path, json=body, headers=headers).json["error"] == "csrf"
    for site in ("cross-site", "same-site", "none", ""):
        reply = bot.client.post(path, json=body, headers={"X-CSRF": bot.csrf, "Sec-Fetch-Site": site})
        assert (reply.status_code, reply.json["error"]) == (403, "csrf")
    form = bot.client.post(path, data=body, headers={"X-CSRF": bot.csrf})
    assert (form.status_code, form.json["error"]) == (415, "not_json")
    assert everything(url) == before
    # A proxy that passes on its own name as the Host makes every Origin another one's.
    good = {"X-CSRF": bot.csrf, "Sec-Fetch-Site": "same-origin", "Origin": "https://lab.example"}
    assert bot.client.post(path, json=body, headers=good).status_code == 200


def test_a_restart_with_another_secret_refuses_nobody_whose_old_one_is_named(site, bot, clock):
    cookie = bot.client.get_cookie("study", path="/s/study").value
    for fallbacks, status in (["secret"], 200), ([], 401):
        app = make_app(site.config["DATABASE_URL"], clock, SECRET_KEY="another", SECRET_KEY_FALLBACKS=fallbacks)
        client = app.test_client()
        client.set_cookie("study", cookie, path="/s/study")
        assert client.get("/s/study/api/next").status_code == status
        app.extensions["study_database"].engine.dispose()


FORGED = Keys("guessed").sign("cookie", "a" * 22)


@pytest.mark.parametrize("cookie", ["", "short", "a" * 22, FORGED, "é" * 22, "'; DROP TABLE study; --", "own unsigned"])
def test_a_tampered_cookie_is_nobody(site, bot, url, cookie):
    before = everything(url)
    cookie = bot.token if cookie == "own unsigned" else cookie
    bot.client.set_cookie("study", cookie, path="/s/study")
    assert bot.client.get("/s/study/api/next").status_code == 401
    assert bot.client.get("/s/study/run").status_code == 401
    assert bot.fetch(bot.window[0]).status_code == 404
    assert bot.post(RESPONSE.format(*bot.window), measured(bot)).status_code == 403
    assert everything(url) == before


def test_consent_screen_and_state_are_checked_before_anything_is_stored(site, clock, url):
    admin = site.extensions["study_admin"]
    bot = Bot(site, "study", clock, random.Random(0))
    bot.enter()
    good = {"consent_sha256": bot.consent, **DEVICE}
    before = everything(url)
    for change, status, error in [
        ({"viewport_w": 299}, 403, "too_small"),
        ({"viewport_h": 239}, 403, "too_small"),
        ({"consent_sha256": "0" * 64}, 409, "consent_changed"),
    ]:
        reply = bot.post(START, {**good, **change})
        assert (reply.status_code, reply.json["error"]) == (status, error)
    assert everything(url) == before
    admin.move("study", "pause")
    assert bot.post(START, good).json["error"] == "not_running"
    assert bot.client.get("/s/study").status_code == 403
    admin.move("study", "run")
    assert bot.post(START, good).status_code == 201
    admin.move("study", "pause")  # who is inside goes on
    assert bot.upcoming()["state"] == "trials"


def take_every_place(site, clock):
    """Let everybody's time run out, and others take all places."""
    clock.advance(46 * 60_000)
    for seed in itertools.count(100):
        other = Bot(site, "study", clock, random.Random(seed))
        if other.enter().status_code == 503:
            return
        other.start()


def test_pages_lead_to_where_the_session_is(site, bot, clock):
    def page(path):
        reply = bot.client.get("/s/study" + path)
        return reply.location or reply.status_code

    assert [page(""), page("/run"), page("/done")] == ["/s/study/run", 200, "/s/study/run"]
    stranger = site.test_client()
    assert [stranger.get(f"/s/study{path}").status_code for path in ("", "/run", "/done")] == [200, 401, 401]
    assert [stranger.get(f"/s/{slug}").status_code for slug in ("other", "%00", "A", "x" * 99)] == [404] * 4
    assert "Traceback" not in stranger.get("/nowhere").text
    clock.advance(46 * 60_000)
    assert [page(""), page("/run"), page("/done"), page(NEXT)] == ["/s/study/run", 200, "/s/study/run", 200]
    take_every_place(site, clock)
    assert [page(""), page("/run"), page("/done"), page(NEXT)] == [410] * 4


def test_a_finished_session_shows_its_code_and_stays_finished(site, clock):
    bot = Bot(site, "study", clock, random.Random(0))
    bot.enter()
    bot.start()
    assert bot.take(lambda trial: "left")
    code = site.extensions["study_service"].certificate("study", bot.token).exit.code
    assert re.fullmatch(r"failed-[2-9a-z]{12}", code)  # of two catch trials one has its real picture on the right
    assert code in bot.client.get("/s/study/done").text
    assert bot.upcoming()["state"] == "done"
    assert bot.post(FINISH, {"answers": {"how": "again"}}).status_code == 200
    assert bot.client.get("/s/study").location == "/s/study/done"
    assert bot.start().status_code == 200  # it has a place and gets no other
    assert len(everything(site.config["DATABASE_URL"])["answer"]) == 0


def test_ten_long_answers_in_japanese_are_taken_and_no_more(clock, pack, tmp_path):
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    open_study(app, pack, small_spec(questions=tuple(Question(f"q{i}", "?") for i in range(10))))
    bot = Bot(app, "study", clock, random.Random(0))
    bot.enter()
    bot.start()
    truth = _truth(app.extensions["study_database"], bot.token)
    for _ in truth:
        trial = bot.upcoming()["window"][0]
        assert bot.answer(trial, 3000, truth[trial["token"]][0]).status_code == 200

    def finish(answers):  # as browsers send it: UTF-8, not escaped
        sent = json.dumps({"answers": answers}, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"X-CSRF": bot.csrf, "Content-Type": "application/json"}
        return bot.client.post(f"{bot.base}/api/finish", data=sent, headers=headers)

    answers = {f"q{i}": "画" * 2000 for i in range(10)}
    assert finish({**answers, "q10": "画" * 2000}).json["error"] == "too_large"
    assert finish(answers).status_code == 200
    assert csv_cell(app, "answer_q9") == "画" * 2000


def csv_cell(app, column):
    table = csv.DictReader(io.StringIO(export.sessions_csv(app.extensions["study_database"], "study")))
    return [row[column] for row in table][-1]


def test_answers_to_questions_must_fit_them(site, clock):
    bot = Bot(site, "study", clock, random.Random(0))
    bot.enter()
    bot.start()
    bot.take_all = bot.take(lambda trial: "left", limit=6)
    rest = bot.upcoming()
    for trial in rest["window"]:
        bot.answer(trial, 3000, "left")
    assert bot.post(FINISH, {"answers": {"what": "tablet"}}).status_code == 400
    assert bot.post(FINISH, {"answers": {"who": "me"}}).status_code == 400
    assert bot.post(FINISH, {"answers": {"what": "phone", "how": "=SUM(A1)"}}).status_code == 200
    assert len(everything(site.config["DATABASE_URL"])["answer"]) == 2


def test_required_questions_and_scales(clock, pack, tmp_path):
    asked = (Question("sure", "How sure?", "scale", ("not at all", "very"), required=True), Question("how", "How?"))
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    open_study(app, pack, small_spec(questions=asked))
    bot = Bot(app, "study", clock, random.Random(0))
    bot.enter()
    bot.start()
    bot.take(lambda trial: "left", limit=6)
    for trial in bot.upcoming()["window"]:
        bot.answer(trial, 3000, "left")
    assert [bot.post(FINISH, {"answers": answers}).status_code for answers in ({"how": "x"}, {"sure": "6"})] == [
        400
    ] * 2
    refused = bot.post(FINISH, {"answers": {"sure": " "}})
    assert (refused.status_code, "must be one of the options" in refused.json["message"]) == (400, True)
    assert bot.post(FINISH, {"answers": {}}).json["message"] == "“How sure?” needs an answer."
    assert bot.post(FINISH, {"answers": {"sure": "5"}}).status_code == 200
    app.extensions["study_database"].engine.dispose()


def test_what_fails_inside_says_so(site, bot, monkeypatch):
    monkeypatch.setattr(type(site.extensions["study_service"]), "upcoming", lambda *_: 1 / 0)
    site.config["PROPAGATE_EXCEPTIONS"] = False
    reply = bot.client.get("/s/study" + NEXT)
    assert (reply.status_code, reply.json["error"]) == (500, "internal")
    assert reply.json["message"].startswith("The server could not do this.")


def test_the_first_page_names_the_studies_that_anybody_can_take(clock, pack, tmp_path):
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    assert "None is open to everybody" in app.test_client().get("/").text
    open_study(app, pack, small_spec(title="Faces"), "faces")
    open_study(app, pack, small_spec(title="Closed"), "closed")
    open_study(app, pack, small_spec(title="Guests", recruitment=Recruitment("invited")), "guests")
    app.extensions["study_admin"].move("closed", "close")
    page = app.test_client().get("/").text
    assert '<a href="/s/faces">Faces</a>' in page and "Closed" not in page and "Guests" not in page
    app.extensions["study_database"].engine.dispose()


def test_events_are_kept_once(site, bot, url):
    events = [{"seq": 1, "type": "hidden", "t": 5}, {"seq": 2, "type": "blur", "t": 6, "detail": "x"}]
    assert bot.post(EVENTS, {"events": events[:1]}).status_code == 204
    assert bot.post(EVENTS, {"events": [*events, events[1]]}).status_code == 204
    assert [row[2:4] for row in everything(url)["event"]] == [(1, "hidden"), (2, "blur")]


def test_events_are_bounded_and_end_with_their_session(site, bot, clock, url):
    noise = [{"seq": seq, "type": "x", "t": 0} for seq in range(1100)]
    sent = [bot.post(EVENTS, {"events": noise[i : i + 100]}).status_code for i in range(0, 1100, 100)]
    assert sent == [204] * 10 + [429]
    assert bot.post(EVENTS, {"events": noise[:100]}).status_code == 204  # the same again
    take_every_place(site, clock)
    assert bot.post(EVENTS, {"events": [{"seq": 9999, "type": "x", "t": 0}]}).status_code == 410
    assert len(everything(url)["event"]) == 1000


def test_limits(pack, clock, tmp_path):
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock, STARTS_PER_HOUR=2, REQUESTS_PER_SECOND=2)
    open_study(app, pack, small_spec())
    statuses = []
    for seed in range(3):
        bot = Bot(app, "study", clock, random.Random(seed))
        bot.enter()
        statuses.append(bot.start().status_code)
        clock.advance(2000)
    assert statuses == [201, 201, 429]
    refused = bot.start()
    assert (refused.json["error"], int(refused.headers["Retry-After"])) == ("slow_down", pytest.approx(1794, abs=4))
    clock.advance(1000 * int(refused.headers["Retry-After"]))
    assert bot.start().status_code == 201
    assert [bot.client.get("/s/study/api/next").status_code for _ in range(6)] == [200] * 5 + [429]
    clock.advance(1000)
    assert bot.client.get("/s/study/api/next").status_code == 200


def test_who_is_limited_stays_so_among_many(clock):
    """And whose bucket is full again is forgotten; looking for those takes no longer with more clients."""
    limiter = limits.Limiter(clock, per_hour=60, burst=1)
    looked = 0
    for number in range(3 * limits.FEW):
        before = limiter._buckets
        assert limiter.wait_s(str(number)) == 0
        looked += limiter._buckets is not before
    assert looked == 2 and len(limiter._buckets) == 3 * limits.FEW
    assert {limiter.wait_s(str(number)) for number in (0, limits.FEW, 3 * limits.FEW - 1)} == {60}
    clock.advance(60_000)
    for number in range(2 * limits.FEW):
        assert limiter.wait_s(f"another {number}") == 0
    assert len(limiter._buckets) <= 2 * limits.FEW + 1


def test_headers_of_every_answer(site, bot):
    paths = ("", "/run", "/api/next", "/nowhere", "/i/aaaaaaaaaaaaaaaaaaaaaa")
    replies = [bot.client.get(f"/s/study{path}") for path in paths] + [
        bot.post(START, {}),
        bot.client.get("/static/style.css"),
    ]
    for reply in replies:
        assert web.HEADERS.items() <= dict(reply.headers).items()
        assert reply.headers["Content-Security-Policy"] == web.policy(is_framed=False)
        assert "unsafe" not in web.policy(True) and "frame-ancestors 'none'" in web.policy(False)
    fresh = site.test_client().get("/s/study").headers["Set-Cookie"]
    assert all(part in fresh for part in ("HttpOnly", "SameSite=Lax", "Path=/s/study"))
    assert "Secure" not in fresh
    assert "Secure" in site.test_client().get("/s/study", base_url="https://localhost").headers["Set-Cookie"]
    assert bot.token not in str(everything(site.config["DATABASE_URL"]))  # only its hash is stored


def test_a_lab_asks_its_own_question(pack, clock, tmp_path):
    """What the TOML says stands on the page, and nothing in it is markup; else the paper's question does."""
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    own = {"question": "Which is <i>sharper</i> & more real?", "answers": ("The left one", "The right one")}
    own |= {"instructions": "Look closely.\n\nThere is no hurry."}
    open_study(app, pack, small_spec(**own), "own")
    open_study(app, pack, small_spec(), "paper")
    pages = {}
    for slug in ("own", "paper"):
        bot = Bot(app, slug, clock, random.Random(0))
        bot.enter()
        bot.start()
        pages[slug] = bot.client.get(f"/s/{slug}/run").text
    assert pages["own"].count("Which is &lt;i&gt;sharper&lt;/i&gt; &amp; more real?") == 4
    assert "<p>Look closely.</p>" in pages["own"] and "<p>There is no hurry.</p>" in pages["own"]
    assert "disabled>The left one <kbd>" in pages["own"] and "disabled>The right one <kbd>" in pages["own"]
    assert "Look at the cross" not in pages["own"] and "Look at the cross" in pages["paper"]
    assert "If you are not sure, choose the one" in pages["paper"]
    assert pages["paper"].count(f"{QUESTIONS[2]}</") == 4 and "disabled>Left <kbd>" in pages["paper"]
