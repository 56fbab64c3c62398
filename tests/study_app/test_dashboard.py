"""The researcher's pages: who gets in, whether what they say is what the analysis says, and what they do."""

import csv
import io
import random
import re
from collections import Counter

import pytest
from PIL import Image

from analysis import tables
from analysis.exclusions import exclude
from analysis.fool_rate import fool_rates
from analysis.image_rates import image_rates
from sr3eval.errors import UserError
from study_app import export
from study_app.admin import RESERVED
from study_app.bots import Bot, simulate
from study_app.recruitment import Codes, Recruitment
from tests.study_app.small_study import everything, make_app, open_study, small_spec

PASSWORD = "correct horse battery"
RATES = {"sr3": 0.5, "esrgan (x4)": 0.2}


@pytest.fixture
def app(clock, pack, url):
    app = make_app(url, clock)
    open_study(app, pack, small_spec())
    app.extensions["study_accounts"].set_password("ada", PASSWORD)
    yield app
    app.extensions["study_database"].engine.dispose()


def csrf(page):
    return re.search(r'name="csrf" value="([^"]+)"', page.text)[1]


def log_in(client, name="ada", password=PASSWORD):
    return client.post(
        "/admin/login", data={"name": name, "password": password, "csrf": csrf(client.get("/admin/login"))}
    )


@pytest.fixture
def ada(app):
    client = app.test_client()
    assert log_in(client).location == "/admin/"
    return client


def press(client, path, page="/admin/study", **fields):
    """Submit a form as the page has it."""
    return client.post(path, data={"csrf": csrf(client.get(page)), **fields}, follow_redirects=True)


def cells(page):
    """The text of every table row."""
    plain = lambda cell: " ".join(re.sub(r"<[^>]+>", " ", cell).split())  # noqa: E731
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page.text, re.DOTALL)
    return [[plain(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


def test_nobody_gets_in_without_a_login(app, ada):
    values = {"slug": "study", "table": "responses", "verb": "pause", "stimulus": 1, "which": "real"}
    rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("dashboard.")]
    before = everything(app.config["DATABASE_URL"])
    stranger = app.test_client()
    token = csrf(stranger.get("/admin/login"))
    urls = [rule.build({name: values[name] for name in rule.arguments})[1] for rule in rules]
    methods = ["POST" if "POST" in rule.methods else "GET" for rule in rules]
    closed = [(url, method) for url, method in zip(urls, methods, strict=True) if url != "/admin/login"]
    assert len(closed) >= 12
    for url, method in closed:
        sent = {"data": {"csrf": token}} if method == "POST" else {}
        reply = stranger.open(url, method=method, **sent)
        assert (reply.status_code, reply.location) == (303, "/admin/login"), url
        assert ada.open(url, method=method).status_code == (200 if method == "GET" else 403), url  # no token
    assert everything(app.config["DATABASE_URL"])["study"] == before["study"]


def test_a_wrong_password_tells_nothing_and_is_throttled(app, clock):
    client = app.test_client()
    wrong = [log_in(client, name, word) for name, word in (("ada", "wrong"), ("bob", PASSWORD), ("ada", ""))]
    assert {reply.status_code for reply in wrong} == {403} and len({reply.text for reply in wrong}) == 1
    statuses = [log_in(client, "ada", "wrong").status_code for _ in range(8)]
    assert statuses[-1] == 429 and log_in(client).status_code == 429
    assert log_in(app.test_client(), "ada").status_code == 429  # by name too
    clock.advance(10 * 60_000)
    assert log_in(client).status_code == 303
    log = everything(app.config["DATABASE_URL"])["audit"]
    assert Counter(row[3] for row in log)["failed login"] >= 5 and log[-1][2:4] == ("ada", "log in")


def test_a_password_is_stored_as_a_hash_and_another_one_ends_logins(app, ada):
    stored = str(everything(app.config["DATABASE_URL"]))
    assert PASSWORD not in stored and "scrypt:" in stored
    runner = app.test_cli_runner()
    assert "12 to 200 characters" in runner.invoke(args=["study", "admin", "ada"], input="short\nshort\n").output
    assert ada.get("/admin/").status_code == 200
    other = "another horse battery"
    assert "may log in" in runner.invoke(args=["study", "admin", "ada"], input=f"{other}\n{other}\n").output
    assert ada.get("/admin/").location == "/admin/login"
    assert log_in(ada, password=other).status_code == 303
    assert "removed" in runner.invoke(args=["study", "admin", "ada", "--remove"]).output
    assert ada.get("/admin/").location == "/admin/login"
    assert 'no account "ada"' in runner.invoke(args=["study", "admin", "ada", "--remove"]).output


def test_a_form_of_another_site_does_nothing(app, ada):
    for sent in ({}, {"csrf": ""}, {"csrf": "0" * 22}, {"csrf": csrf(app.test_client().get("/admin/login"))}):
        assert ada.post("/admin/study/move/close", data=sent).status_code == 403
    assert "running" in str(everything(app.config["DATABASE_URL"])["study"])
    cookie = log_in(app.test_client()).headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/admin"} <= set(cookie.split("; "))
    assert press(ada, "/admin/logout").request.path == "/admin/login"
    assert ada.get("/admin/").status_code == 303


def test_below_a_prefix_the_cookie_is_for_the_admin_pages_alone(clock, tmp_path):
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock, PREFIX="/lab")
    app.extensions["study_accounts"].set_password("ada", PASSWORD)
    client = app.test_client()
    form = {"name": "ada", "password": PASSWORD, "csrf": csrf(client.get("/lab/admin/login"))}
    reply = client.post("/lab/admin/login", data=form)
    assert reply.location == "/lab/admin/" and "Path=/lab/admin" in reply.headers["Set-Cookie"].split("; ")
    assert client.get("/lab/admin/").status_code == 200


def test_rates_and_progress_are_those_of_the_export(app, ada, clock, tmp_path):
    assert "No answers that count yet" in ada.get("/admin/study").text
    simulate(app, "study", RATES, seed=1, clock=clock, subjects=9, drop_outs=0.3, catch_rate=0.9)
    for seed in range(2):  # one in the middle, one who guesses catch trials wrong
        bot = Bot(app, "study", clock, random.Random(seed))
        bot.enter()
        bot.start()
        bot.take(lambda trial: "left", limit=(None, 5)[seed])
    path = tmp_path / "responses.csv"
    path.write_text(export.responses_csv(app.extensions["study_database"], "study"))
    responses = tables.load(path)
    expected = fool_rates(exclude(responses)[0], by=["condition", "model"])
    page = ada.get("/admin/study")
    shown = [row for row in cells(page) if len(row) == 8 and row[0] != "Condition"]
    assert len(expected) == 2
    percent = lambda value: f"{100 * value:.1f} %"  # noqa: E731
    assert [row[:4] + row[5:] for row in shown] == [
        [
            *(row.condition, row.model, percent(row.fool_rate), f"{percent(row.ci_low)} to {percent(row.ci_high)}"),
            *map(str, (row.n, row.subjects, row.images)),
        ]
        for row in expected.itertuples()
    ]
    sessions = list(csv.DictReader(io.StringIO(export.sessions_csv(app.extensions["study_database"], "study"))))
    for row in cells(page):
        if len(row) == 6 and row[0] != "Condition":
            mine = [one for one in sessions if one["condition"] == row[0]]
            done = Counter(bool(one["excluded_reason"]) for one in mine if one["finished_at"])
            assert row[1:3] == [f"{done[False]} of 6", str(done[True])]
            assert sum(map(int, row[3:])) == len([one for one in mine if not one["finished_at"]])
            line = f"study (running)  {row[0]}: {done[False]} of 6 finished, {row[3]} active"
            assert line in app.test_cli_runner().invoke(args=["study", "list"]).output
    count = len([one for one in sessions if one["finished_at"] and not one["excluded_reason"]])
    assert [row[3] for row in cells(ada.get("/admin/"))[1:]] == [f"{count} of 12"]
    people = {row[0]: row for row in cells(ada.get("/admin/study/subjects"))[1:]}
    assert {code: row[6] for code, row in people.items()} == {s["subject"]: s["completion_code"] for s in sessions}
    assert {code: row[4] for code, row in people.items()} == {s["subject"]: s["trials_answered"] for s in sessions}
    failed = {s["subject"] for s in sessions if s["excluded_reason"] == "failed_catch"}
    assert failed and failed == {code for code, row in people.items() if "study: failed_catch" in row[5]}
    paid = {row["subject"]: row for row in csv.DictReader(io.StringIO(ada.get("/admin/study/payments.csv").text))}
    assert {code for code, row in paid.items() if row["outcome"] == "failed catch"} == failed
    assert {code: row["completion_code"] for code, row in paid.items()} == {c: row[6] for c, row in people.items()}
    expected = image_rates(exclude(responses)[0], by=["model"]).set_index(["image_id", "model"])
    images = [row for row in cells(ada.get("/admin/study/images"))[1:] if row[2] == "test"]
    assert len(images) == 16 and expected["shrunk"].notna().any()
    dash = lambda value: "–" if value != value else percent(value)  # noqa: E731
    for name, model, *_, rate, interval, shrunk, n in images:
        if (name, model) not in expected.index:
            assert (rate, interval, shrunk, n) == ("", "", "", "")
            continue
        row = expected.loc[name, model]
        assert (rate, interval) == (
            percent(row["fool_rate"]),
            f"{percent(row['wilson_low'])} to {percent(row['wilson_high'])}",
        )
        assert (shrunk, n) == (dash(row["shrunk"]), str(row["n"]))


def test_who_has_withdrawn_is_shown_as_gone_and_not_paid_as_complete(clock, pack, tmp_path):
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    open_study(app, pack, small_spec(questions=(), recruitment=Recruitment("prolific", codes=Codes("C1", "F1", "N1"))))
    app.extensions["study_accounts"].set_password("ada", PASSWORD)
    bots = [Bot(app, "study", clock, random.Random(seed)) for seed in range(2)]
    for number, bot in enumerate(bots):
        bot.enter(f"?PROLIFIC_PID={number:024x}&STUDY_ID=s&SESSION_ID=t{number}")
        assert bot.start().status_code == 201
    bots[0].take(lambda trial: "left", limit=3)
    assert bots[0].post("/withdraw", {}).status_code == 200
    ada = app.test_client()
    log_in(ada)
    progress = [row for row in cells(ada.get("/admin/study")) if len(row) == 6 and row[0] != "Condition"]
    assert sorted(row[1:] for row in progress) == [["0 of 6", "0", "0", "1", "0"], ["0 of 6", "0", "1", "0", "0"]]
    newest, gone = cells(ada.get("/admin/study/subjects"))[1:]
    assert (newest[2], gone[2], gone[4], gone[6]) == ("active", "withdrew", "3", "N1") and "study: withdrew" in gone[5]
    paid = {
        row["participant_id"]: row for row in csv.DictReader(io.StringIO(ada.get("/admin/study/payments.csv").text))
    }
    first, second = (paid[f"{number:024x}"] for number in range(2))
    assert (first["outcome"], first["completion_code"], first["minutes"]) == ("withdrew", "N1", "")
    assert second["outcome"] == "not finished"
    approvals = ada.get("/admin/study/approvals.csv")
    assert (approvals.status_code, approvals.text) == (200, "")
    app.extensions["study_database"].engine.dispose()


def test_no_study_has_the_name_of_another_page(app, pack):
    pages = {rule.rule.split("/")[2] for rule in app.url_map.iter_rules() if rule.rule.startswith("/admin/")}
    assert {page for page in pages if page and page[0] != "<"} == set(RESERVED)
    for slug in RESERVED:
        with pytest.raises(UserError, match=f'"{slug}" is the name of a page under /admin; choose another --slug'):
            app.extensions["study_admin"].create(slug, small_spec(), ["sr3"], [])


def test_thumbnails(app, ada):
    sources = re.findall(r'src="(/admin/study/images/[^"]+)"', ada.get("/admin/study/images").text)
    assert len(sources) == 2 * (2 * 8 + 2 * 2 + 2)
    small = Image.open(io.BytesIO(ada.get(sources[0]).data))
    assert small.format == "PNG" and small.size == (32, 32)
    assert [ada.get(f"/admin/study/images/{path}").status_code for path in ("9999/real.png", "1/left.png")] == [404] * 2
    assert ada.get("/admin/other/images/1/real.png").status_code == 303


def test_what_is_done_is_done_and_logged(app, ada, clock):
    simulate(app, "study", RATES, seed=0, clock=clock, subjects=2)
    sessions = list(csv.DictReader(io.StringIO(ada.get("/admin/study/export/sessions").text)))
    assert ada.get("/admin/study/export/responses").text == export.responses_csv(
        app.extensions["study_database"], "study"
    )
    assert "is paused" in press(ada, "/admin/study/move/pause").text
    assert "cannot pause it" in press(ada, "/admin/study/move/pause").text
    assert "is running" in press(ada, "/admin/study/move/run").text
    code = sessions[0]["completion_code"]
    assert "no participant" in press(ada, "/admin/study/delete", code="nobody").text
    assert "is deleted, with the answers" in press(ada, "/admin/study/delete", code=f" {code} ").text
    assert "no participant" in press(ada, "/admin/study/delete", code=code).text
    assert "1 place free again" in press(ada, "/admin/study/reopen", code=sessions[1]["subject"]).text
    assert "the session is excluded" in press(ada, "/admin/study/reopen", code=sessions[1]["subject"]).text
    assert "close it first" in press(ada, "/admin/study/delete-study", typed="study").text
    assert "is closed" in press(ada, "/admin/study/move/close").text
    assert "Delete study" in ada.get("/admin/study").text
    log = [row[:4] for row in cells(ada.get("/admin/study/log"))[1:]]
    by_ada = ["close", "reopen", "delete participant", "run", "pause", "export", "export"]
    before = [("command line", what) for what in ("run", "freeze", "create")]
    assert [tuple(row[1:3]) for row in log] == [*(("ada", what) for what in by_ada), *before]
    assert ["ada", "log in"] in [row[1:3] for row in cells(ada.get("/admin/log"))]
    assert "nothing is deleted" in press(ada, "/admin/study/delete-study", typed="Study").text
    assert "study is deleted." in press(ada, "/admin/study/delete-study", typed=" study ").text
    assert ["ada", "delete study", "study"] in [row[1:4] for row in cells(ada.get("/admin/log"))]


def test_a_participant_of_another_study_is_not_deleted_here(app, ada, clock, pack):
    open_study(app, pack, small_spec(seed=1), "other")
    simulate(app, "other", RATES, seed=0, clock=clock, subjects=1)
    [theirs] = csv.DictReader(io.StringIO(export.sessions_csv(app.extensions["study_database"], "other")))
    before = everything(app.config["DATABASE_URL"])
    assert "no participant" in press(ada, "/admin/study/delete", code=theirs["subject"]).text
    assert everything(app.config["DATABASE_URL"]) == before
