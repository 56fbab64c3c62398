"""Who may take part, once each, and what everybody leaves with."""

import csv
import dataclasses
import datetime
import io
import itertools
import random
import re

import pytest
from sqlalchemy import func, select

from sr3eval.config import from_dict
from sr3eval.errors import UserError
from study_app import create_app, export
from study_app.admin import the_study
from study_app.bots import Bot
from study_app.dashboard.progress import subjects
from study_app.models import Identity, Participant, Session
from study_app.recruitment import Codes, Recruitment
from study_app.signing import Keys
from tests.study_app.small_study import everything, make_app, open_study, small_spec

CODES = Codes("DONE1", "FAIL2", "NOPE3", "FULL4", "LATE5")
PROLIFIC = Recruitment("prolific", codes=CODES)
MTURK = Recruitment("mturk", codes=CODES)
PERSON = "5f3c0a9e8b7d6c5b4a392817"
SEEDS = itertools.count()  # a client_uuid is used once
HTML = {"Accept": "text/html"}
SITE = "https://workersandbox.mturk.com"


def pid(name):
    """An id such as Prolific's."""
    return name.encode().hex().ljust(24, "0")


def prolific(name=None, session="a", project="s1"):
    return f"?PROLIFIC_PID={pid(name) if name else PERSON}&STUDY_ID={project}&SESSION_ID={session}"


def mturk(worker="A1B2", assignment="3XYZ", submit_to=SITE):
    return f"?workerId={worker}&hitId=h1&assignmentId={assignment}&turkSubmitTo={submit_to}"


RETURNED = [
    (PROLIFIC, prolific(session="first"), prolific(session="again")),
    (MTURK, mturk(assignment="first"), mturk(assignment="again")),
]


@pytest.fixture
def site(url, clock, pack):
    """site(recruitment, **changes of the study): an app with that study."""
    apps = []

    def start(recruitment, config=None, **changes):
        app = make_app(url, clock, **(config or {}))
        open_study(app, pack, small_spec(recruitment=recruitment, questions=(), **changes))
        apps.append(app)
        return app

    yield start
    for app in apps:
        app.extensions["study_database"].engine.dispose()


def newcomer(app, link=""):
    bot = Bot(app, "study", app.config["CLOCK"], random.Random(next(SEEDS)))
    bot.entry = bot.enter(link)
    return bot


def count(app, column=Session.id):
    with app.extensions["study_database"].read() as db:
        return db.scalar(select(func.count(column)))


def sides(app, bot):
    """By trial token, the side of the real picture."""
    from study_app.bots import _truth

    return {token: side for token, (side, *_) in _truth(app.extensions["study_database"], bot.token).items()}


def take_all(app, bot, passes=True):
    truth = sides(app, bot)
    wrong = {"left": "right", "right": "left"}
    bot.take(lambda trial: truth[trial["token"]] if passes else wrong[truth[trial["token"]]])


def page(bot, path="/done"):
    return bot.client.get(bot.base + path, headers=HTML).text


def test_a_link_without_all_of_it_opens_nothing(site):
    app = site(PROLIFIC)
    before = everything(app.config["DATABASE_URL"])
    people = ("", "abc", "a/b", "x" * 24, PERSON + "0", PERSON[:-1], PERSON.upper(), PERSON + "%0A")
    strange = [f"?PROLIFIC_PID={person}&STUDY_ID=s1&SESSION_ID=a" for person in people]
    for link in ("", "?PROLIFIC_PID=", f"?PROLIFIC_PID={PERSON}", *strange, mturk(), prolific(project="x" * 65)):
        bot = newcomer(app, link)
        assert (bot.entry.status_code, bot.entry.json["error"]) == (403, "no_identity")
    bot = newcomer(app, prolific())
    bot.link = ""  # the consent page was honest, the start is not
    assert bot.start().json["error"] == "no_identity"
    assert everything(app.config["DATABASE_URL"]) == before


def test_links_of_another_study_of_prolifics_open_nothing(site):
    app = site(dataclasses.replace(PROLIFIC, project="5f3c0a9e8b7d6c5b4a392818"))
    for project in ("s1", "", "5f3c0a9e8b7d6c5b4a392819"):
        assert newcomer(app, prolific(project=project)).entry.json["error"] == "no_identity"
    assert newcomer(app, prolific(project="5f3c0a9e8b7d6c5b4a392818")).start().status_code == 201


def test_whoever_deletes_the_cookie_goes_on_with_the_same_place(site, clock):
    app = site(PROLIFIC)
    first = newcomer(app, prolific())
    assert first.start().status_code == 201
    window = first.upcoming()["window"]
    first.answer(window[0], 3000, "left")
    for again in range(8):  # the script that took 20 of 20 places
        bot = newcomer(app, prolific(session=f"s{again}"))
        assert bot.start().status_code == 200
    assert (count(app), count(app, Participant.id)) == (1, 1)
    assert bot.upcoming()["done"] == 1  # where the first browser was
    assert first.client.get("/s/study/api/next").status_code == 401
    with app.extensions["study_database"].read() as db:
        assert db.scalar(select(Identity.submission)) == "s7"  # what is paid
    take_all(app, bot)
    for link in (prolific(), prolific(session="later")):
        bot = newcomer(app, link)
        assert (bot.entry.status_code, bot.entry.json["error"]) == (409, "taken_part")
        assert "DONE1" not in page(bot, link)  # another's code is not to be had by another's name
    clock.advance(46 * 60_000)
    assert count(app) == 1


@pytest.mark.parametrize(("recruitment", "first", "again"), RETURNED)
def test_a_task_returned_and_taken_again_in_the_same_browser_is_the_one_that_is_paid(site, recruitment, first, again):
    app = site(recruitment)
    bot = newcomer(app, first)
    if "Secure" in (cookie := bot.entry.headers["Set-Cookie"]):
        bot.client.set_cookie("study", re.search("study=([^;]+)", cookie)[1], path="/s/study")
    assert bot.start().status_code == 201

    def paid():
        with app.extensions["study_database"].read() as db:
            return db.scalar(select(Identity.submission))

    assert paid() == "first"
    entry = bot.client.get(bot.base + again)
    assert entry.location.endswith("/run") and paid() == "again"
    bot.link = first
    assert (bot.start().status_code, paid()) == (200, "first")
    bot.client.get(bot.base + again)
    bot.link = ""
    bot.client.get(bot.base)  # our own page's link says nothing of it
    take_all(app, bot)
    assert recruitment is PROLIFIC or 'name="assignmentId" value="again"' in page(bot)
    bot.client.get(bot.base + first)  # what has been handed in stays
    assert (count(app), paid()) == (1, "again")


def test_two_people_at_one_computer_are_two(site):
    app = site(PROLIFIC)
    one = newcomer(app, prolific("one"))
    one.start()
    assert one.client.get(one.base + prolific("one")).location.endswith("/run")
    consent = one.client.get(one.base + prolific("two"))
    assert consent.status_code == 200 and "Set-Cookie" in consent.headers
    one.enter(prolific("two"))
    assert one.start().status_code == 201
    one.link = prolific("one")
    assert one.start().json["error"] == "somebody_else"
    assert count(app) == 2


def test_invitations_hold_once_and_cannot_be_made_up(site, tmp_path):
    app = site(Recruitment("invited"))
    names = tmp_path / "names.txt"
    names.write_text("Ada\n\nGrace\n")
    run = lambda *line: app.test_cli_runner().invoke(args=["study", *line])  # noqa: E731
    table = list(csv.DictReader(io.StringIO(run("invite", "study", "--names", str(names)).output)))
    assert [row["name"] for row in table] == ["Ada", "Grace"]
    links = [row["link"].removeprefix("http://localhost:5000/s/study") for row in table]
    bots = [newcomer(app, link) for link in links]
    assert [bot.start().status_code for bot in bots] == [201, 201]
    assert "Ada" not in str(everything(app.config["DATABASE_URL"]))
    take_all(app, bots[0])
    assert newcomer(app, links[0]).entry.json["error"] == "taken_part"
    other = Keys("guessed").sign("invitation/study", table[0]["person"])
    elsewhere = app.extensions["study_keys"].sign("invitation/other", table[0]["person"])
    for forged in ("", table[0]["person"], links[0][12:-1], other, elsewhere, "é"):
        assert newcomer(app, f"?invitation={forged}").entry.json["error"] == "no_identity"
    assert count(app) == 2
    assert run("invite", "study").exit_code == 2
    assert len(run("invite", "study", "--count", "3", "--url", "https://x.org/").output.split("https://x.org/s/")) == 4


def test_invitations_expire_and_are_revoked_but_who_has_begun_may_finish(site, clock):
    app = site(Recruitment("invited"), language="de", idle_minutes=2 * 24 * 60)
    run = lambda *line: app.test_cli_runner().invoke(args=["study", "invite", "study", *line])  # noqa: E731
    today = datetime.datetime.fromtimestamp(clock() / 1000, datetime.UTC).date()

    def links(*line):
        table = list(csv.DictReader(io.StringIO(run("--count", "3", *line).output)))
        return [(row["person"], row["link"].partition("/s/study")[2]) for row in table]

    (_, begun), (_, unused), _ = links("--until", str(today))
    bot = newcomer(app, begun)
    assert bot.start().status_code == 201
    waiting = newcomer(app, unused)  # has the page of the consent
    to_midnight = 86_400_000 - clock() % 86_400_000
    clock.advance(to_midnight - 1)
    assert newcomer(app, unused).entry.status_code == 200
    clock.advance(1)
    for reply in (waiting.start(), newcomer(app, unused).entry):
        assert (reply.status_code, reply.json["error"]) == (403, "not_invited")
    page = app.test_client().get(f"/s/study{unused}", headers=HTML)
    assert page.status_code == 403 and "Ihre Einladung gilt nicht mehr" in page.text
    assert newcomer(app, begun).entry.status_code == 200  # from another browser: goes on
    (revoked, link), (other, stays), (_, third) = links()
    waiting, another = newcomer(app, link), newcomer(app, stays)
    assert run("--revoke", revoked, "--revoke", revoked).output == "study: 1 link revoked\n"
    assert waiting.start().json["error"] == "not_invited" and another.start().status_code == 201
    before = everything(app.config["DATABASE_URL"])
    for person, why in ((other, "has already begun"), ("Ada", "is not a `person`")):
        result = run("--revoke", "2" * 10, "--revoke", person)
        assert result.exit_code == 1 and why in result.output
    assert everything(app.config["DATABASE_URL"]) == before
    rotated = make_app(app.config["DATABASE_URL"], clock, SECRET_KEY="next", SECRET_KEY_FALLBACKS=["secret"])
    assert newcomer(rotated, link).entry.json["error"] == "not_invited"
    assert newcomer(rotated, third).start().status_code == 201
    rotated.extensions["study_database"].engine.dispose()
    bot.link = begun
    take_all(app, bot)
    assert count(app) == 3


def test_links_are_signed_by_the_servers_key_alone(tmp_path, monkeypatch):
    """And not by the one that `flask` makes for itself where there is none."""
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    app = create_app({"DATABASE_URL": f"sqlite:///{tmp_path / 's.sqlite'}", "SECRET_KEY": None})
    result = app.test_cli_runner().invoke(args=["study", "invite", "study", "--count", "1"])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert result.output.startswith("Error: STUDY_SECRET_KEY is missing: set it to the server's")


def test_every_outcome_has_its_code_and_its_way_back(site, clock):
    app = site(PROLIFIC, target=2, images=8, per_subject=8)
    url = "https://app.prolific.com/submissions/complete?cc="
    bots = [newcomer(app, prolific(f"p{i}")) for i in range(4)]
    assert [bot.start().status_code for bot in bots] == [201] * 4
    full = newcomer(app, prolific("p4"))
    assert (full.entry.status_code, full.entry.json["error"]) == (503, "full")  # before anybody reads the consent
    assert f'href="{url}FULL4"' in page(full, prolific("p4"))
    take_all(app, bots[0])
    assert f'href="{url}DONE1"' in page(bots[0]) and "FAIL2" not in page(bots[0])
    take_all(app, bots[1], passes=False)
    assert f'href="{url}FAIL2"' in page(bots[1]) and "DONE1" not in page(bots[1])
    assert bots[2].post("/withdraw", {}).status_code == 200
    assert f'href="{url}NOPE3"' in page(bots[2])
    assert f'href="{url}NOPE3"' in page(full, "/declined" + prolific("p4"))
    clock.advance(46 * 60_000)
    # All places but the finished one's are for others; as long as there is a free one, who was away goes on.
    assert [newcomer(app, prolific(f"q{i}")).start().status_code for i in range(2)] == [201] * 2
    assert bots[3].client.get(bots[3].base).location.endswith("/run")
    assert newcomer(app, prolific("q2")).start().status_code == 201
    for link in (prolific("p3"), ""):  # the other one is our own page's, which names nobody
        assert f'href="{url}LATE5"' in page(bots[3], link)
    assert bots[0].client.get(bots[0].base).location.endswith("/done")
    for bot, error in ((bots[3], "expired"), (bots[2], "over")):
        assert bot.client.get("/s/study/i/" + "a" * 22).status_code == 404
        trial = "/api/trials/" + "a" * 22
        assert bot.post(trial + "/start", {"attempt": bot.uuid()}).status_code == 404
        assert (bot.client.get("/s/study/api/next").json.get("error") or "over") == error
    with app.extensions["study_database"].read() as db:  # whom to pay: by the codes of the last pages
        people = subjects(db, the_study(db, "study"))
    table = csv.DictReader(io.StringIO(export.sessions_csv(app.extensions["study_database"], "study")))
    given = ["DONE1", "FAIL2", "NOPE3"] + 4 * [""]
    assert [row["completion_code"] for row in table] == [one.completion_code for one in people[::-1]] == given
    with app.extensions["study_database"].read() as db:
        states = db.scalars(select(Session.state).order_by(Session.id)).all()
    assert states == ["finished", "excluded", "withdrew", "expired"] + 3 * ["active"]
    assert newcomer(app, prolific("q3")).entry.status_code == 503
    app.extensions["study_admin"].move("study", "pause")
    assert f'href="{url}FULL4"' in page(newcomer(app), prolific("q4"))


def test_mturk_previews_frames_and_takes_its_form(site):
    app = site(MTURK)
    preview = newcomer(app, "?assignmentId=ASSIGNMENT_ID_NOT_AVAILABLE&hitId=h1")
    assert preview.entry.status_code == 200 and 'id="agree"' not in preview.entry.text
    assert preview.start().json["error"] == "no_identity"
    assert newcomer(app, mturk(submit_to="https://evil.example")).entry.json["error"] == "no_identity"
    bot = newcomer(app, mturk())
    cookie, policy = bot.entry.headers["Set-Cookie"], bot.entry.headers["Content-Security-Policy"]
    assert all(part in cookie for part in ("SameSite=None", "Secure", "HttpOnly", "Partitioned"))
    assert (
        "frame-ancestors https://*.mturk.com;" in policy
        and f"form-action 'self' https://www.mturk.com {SITE}" in policy
    )
    secure = {"base_url": "https://localhost"}
    bot.client.set_cookie("study", re.search("study=([^;]+)", cookie)[1], path="/s/study")
    assert bot.start().status_code == 201
    take_all(app, bot)
    html = bot.client.get("/s/study/done", headers=HTML, **secure).text
    assert f'action="{SITE}/mturk/externalSubmit"' in html
    assert 'name="assignmentId" value="3XYZ"' in html and 'name="code" value="DONE1"' in html


@pytest.mark.parametrize("codes", [CODES, Codes()])
def test_who_leaves_mturk_early_hands_the_task_in_too(site, clock, codes):
    """Declined, full and timed out: else the task stays with the worker until it runs out."""
    app = site(Recruitment("mturk", codes=codes), target=1, images=8, per_subject=8)

    def form(html, outcome):
        fields = dict(re.findall(r'name="(\w+)" value="(\w*)"', html))
        assert fields == {"assignmentId": fields["assignmentId"], "outcome": outcome, "code": getattr(codes, outcome)}
        assert f'action="{SITE}/mturk/externalSubmit"' in html and "done.js" in html
        return fields["assignmentId"]

    bots = [newcomer(app, mturk(f"w{n}", f"a{n}")) for n in range(3)]
    for bot in bots[:2]:
        cookie = re.search("study=([^;]+)", bot.entry.headers["Set-Cookie"])[1]
        bot.client.set_cookie("study", cookie, path="/s/study")
        assert bot.start().status_code == 201
    declined = re.search(r'href="/s/study(/declined[^"]*)"', bots[2].entry.text)[1].replace("&amp;", "&")
    assert form(page(bots[2], declined), "no_consent") == "a2"
    full = newcomer(app, mturk("w3", "a3"))
    assert full.entry.status_code == 503
    assert form(page(full, mturk("w3", "a3")), "full") == "a3"
    clock.advance(46 * 60_000)
    assert newcomer(app, mturk("w4", "a4")).start().status_code == 201  # on the place of who began first
    for link in (mturk("w0", "a0"), "", "/run"):  # the others are our own pages'
        assert form(page(bots[0], link), "timed_out") == "a0"
    assert "externalSubmit" not in page(newcomer(app), "/declined")


def test_identities_can_be_deleted_and_still_nobody_comes_twice(site):
    app = site(PROLIFIC)
    bots = [newcomer(app, prolific(f"person{i}")) for i in range(2)]
    for bot in bots:
        bot.start()
        take_all(app, bot)
    rows = everything(app.config["DATABASE_URL"])
    assert pid("person0") not in str({name: table for name, table in rows.items() if name != "identity"})
    assert [row[1:5] for row in rows["identity"]] == [("prolific", pid(f"person{i}"), "s1", "a") for i in range(2)]
    code = app.extensions["study_service"].certificate("study", bots[0].token).subject
    app.extensions["study_admin"].delete_participant(code)  # on request: nothing that tells who it was is left
    assert len(everything(app.config["DATABASE_URL"])["identity"]) == 1
    assert newcomer(app, prolific("person0")).entry.status_code == 200
    result = app.test_cli_runner().invoke(args=["study", "forget-identities", "study"])
    assert result.output == "study: 1 identities deleted\n"
    assert pid("person")[:12] not in str(everything(app.config["DATABASE_URL"]))
    assert newcomer(app, prolific("person1")).entry.json["error"] == "taken_part"


def test_showing_a_trial_again_and_again_holds_no_place(site, clock):
    app = site(Recruitment(), target=2, images=4)
    bots = [newcomer(app) for _ in range(4)]
    assert [bot.start().status_code for bot in bots] == [201] * 4
    trial = bots[0].upcoming()["window"][0]
    pictures = bots[0].fetch(trial)
    for _ in range(3):
        assert bots[0].show(trial, pictures).status_code == 200
        clock.advance(30 * 60_000)
    assert newcomer(app).start().status_code == 201  # in its place: of those who were idle for longest the first
    assert bots[0].show(trial, pictures).json["error"] == "expired"


def test_a_campus_is_not_stopped_and_a_person_is(site, clock):
    app = site(PROLIFIC, {"STARTS_PER_HOUR": 2}, target=14, images=4)
    statuses = [newcomer(app, prolific(f"p{i}")).start().status_code for i in range(21)]
    assert statuses == [201] * 20 + [429]  # ten times as many as from an address of an open study
    clock.advance(3_600_000 / 2)
    again = [newcomer(app, prolific("p50")).start().status_code for _ in range(4)]
    assert again == [201, 200, 429, 429]


def test_behind_proxies_an_address_is_the_clients(pack, clock, tmp_path):
    def starts(proxies, forwarded):
        app = make_app(
            f"sqlite:///{tmp_path / f'{proxies}-{len(list(tmp_path.iterdir()))}.sqlite'}",
            clock,
            TRUSTED_PROXIES=proxies,
            STARTS_PER_HOUR=1,
        )
        open_study(app, pack, small_spec())
        statuses = []
        for address in forwarded:
            bot = newcomer(app)
            statuses.append(
                bot.client.post(
                    "/s/study/start",
                    json={"consent_sha256": bot.consent, "viewport_w": 900, "viewport_h": 700, "dpr": 1}
                    | {"frame_ms": 16.7, "touch": False},
                    headers={"X-CSRF": bot.csrf, "X-Forwarded-For": address},
                ).status_code
            )
        return statuses

    assert starts(0, ["10.0.0.1", "10.0.0.2"]) == [201, 429]  # nobody is believed
    assert starts(1, ["10.0.0.1", "10.0.0.2", "1.2.3.4, 10.0.0.1"]) == [201, 201, 429]  # only the proxy itself is
    subnets = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::2", "2001:db8:1:3::1"]
    assert starts(1, subnets) == [201, 429, 201]  # one machine has all of a subnet's addresses
    assert starts(1, ["::ffff:10.0.0.1", "::ffff:10.0.0.2", "10.0.0.1", "unknown", "unknown"]) == [
        201,
        201,
        429,
        201,
        429,
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"source": "prolfic"}, 'did you mean "prolific"'),
        ({"source": "prolific"}, "name codes.complete and codes.failed_checks"),
        ({"source": "prolific", "codes": {"complete": "A", "failed_checks": "A"}}, "the same code"),
        ({"codes": {"full": "a b"}}, "take letters"),
        ({"project": "abc"}, 'needs source = "prolific"'),
        ({"return_url": "http://x.org?cc={code}"}, "must begin with https"),
        ({"return_url": "https://x.org"}, "{code}"),
    ],
)
def test_a_recruitment_that_cannot_be_is_refused(table, message):
    with pytest.raises(UserError, match=re.escape(message)):
        from_dict(Recruitment, table)


def test_repeats_are_for_open_studies():
    with pytest.raises(UserError, match='only if recruitment.source is "open"'):
        small_spec(recruitment=Recruitment("invited"), repeats=True)


CREATE = ("create", "--study", "study.toml", "--set", "recruitment.source=prolific")
TOML = """
title = "Pictures"
task = 2
images = 8
per_subject = 4
target = 2
practice = 2
catch = 2
catch_pass = 2
min_viewport = [300, 240]
[recruitment.codes]
complete = "DONE1"
failed_checks = "FAIL2"
full = "FULL4"
"""


def test_recruiting_needs_a_contact_and_warns_of_dead_ends(pack, clock, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    (tmp_path / "study.toml").write_text(TOML)
    run = lambda *line: app.test_cli_runner().invoke(args=["study", *CREATE, str(pack), *line])  # noqa: E731
    refused = run()
    assert refused.exit_code == 1 and "name in consent.contact whom people can write to" in refused.output
    assert not app.extensions["study_admin"].counts()
    contact = ("--set", "consent.contact=lab@example.org")
    created = run(*contact)
    assert created.exit_code == 0 and "none for no_consent, timed_out: " in created.stderr
    others = ("--set", "recruitment.codes.no_consent=A", "--set", "recruitment.codes.timed_out=B")
    assert run(*contact, *others).stderr == ""
    assert run(*contact, "--set", "recruitment.source=mturk").stderr == ""  # whose form needs no code
