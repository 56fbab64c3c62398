"""A whole study is deleted: nothing of it stays but the log, and nothing of another one goes."""

import random

import pytest
from sqlalchemy import func, select

from sr3eval.errors import UserError
from study_app.bots import Bot
from study_app.models import Base, FurtherChoice
from study_app.recruitment import Codes, Recruitment
from study_app.signing import hash_token
from study_app.spec import Criterion, Question
from tests.study_app.small_study import everything, make_app, open_study, small_spec
from tests.study_app.test_models_compared import stronger, take

CRITERIA = (Criterion("sharper", "Which is sharper?"), Criterion("faithful", "Which is more faithful?"))
STAYS = ("account", "audit")


@pytest.fixture
def app(clock, pack, url):
    """Two studies with something in every table, but of revoked invitations, which are of the first."""
    app = make_app(url, clock)
    app.extensions["study_accounts"].set_password("ada", "correct horse battery")
    design = {
        "compare": "models",
        "criteria": CRITERIA,
        "tie": "Neither",
        "per_subject": 4,
        "practice": 0,
        "catch": 0,
        "catch_pass": 0,
    }
    for slug in ("other", "study"):
        open_study(app, pack, small_spec(**design, title=f"Pictures of {slug} in a row", questions=()), slug)
        assert take(app, clock, 5 if slug == "other" else 6, stronger, slug)
    asks = Question("how", "How?")
    codes = Codes("CODEONE", "CODETWO", "CODESIX")
    open_study(app, pack, small_spec(questions=(asks,), recruitment=Recruitment("prolific", codes=codes)), "paid")
    open_study(app, pack, small_spec(recruitment=Recruitment("invited")), "invited")
    app.extensions["study_admin"].revoke("invited", ["2345678923"], app.extensions["study_keys"])
    bot = Bot(app, "paid", clock, random.Random(9))
    bot.enter("?PROLIFIC_PID=5f3c0a9e8b7d6c5b4a392817&STUDY_ID=study-there&SESSION_ID=submission-there")
    assert bot.start().status_code == 201
    event = {"seq": 1, "type": "seldom", "t": 1, "detail": "an event of a rare person"}
    assert bot.post("/api/events", {"events": [event]}).status_code < 300
    bot.take(lambda trial: "left", limit=3)
    yield app
    app.extensions["study_database"].engine.dispose()


def texts(rows):
    """Whatever of some rows could be told from other bytes."""
    values = {value for table in rows.values() for row in table for value in row}
    found = {value.encode() if isinstance(value, str) else value for value in values if isinstance(value, str | bytes)}
    return {value for value in found if len(value) >= 10}


def of_others(before, after):
    """Rows that went, by table."""
    return {name: [row for row in rows if row not in set(after[name])] for name, rows in before.items()}


def test_everything_of_it_goes_and_nothing_else(app, tmp_path):
    admin, url = app.extensions["study_admin"], app.config["DATABASE_URL"]
    files = lambda: b"".join(path.read_bytes() for path in tmp_path.glob("study.sqlite*"))  # noqa: E731
    for slug in ("study", "paid", "invited", "other"):
        with pytest.raises(UserError, match="is running: close it first"):
            admin.delete_study(slug, slug)
        admin.move(slug, "close")
        before = everything(url)
        with pytest.raises(UserError, match="is not the study's name"):
            admin.delete_study(slug, slug.upper())
        assert everything(url) == before
        admin.delete_study(slug, slug)
        after = everything(url)
        gone = of_others(before, after)
        assert len(gone["study"]) == 1 and gone["stimulus"] and gone["plan_trial"] and not any(map(gone.get, STAYS))
        others = {"study": 4, "paid": 4, "invited": 4, "other": 0}[slug]  # answers of "other"
        with app.extensions["study_database"].read() as db:
            assert db.scalar(select(func.count(FurtherChoice.id))) == others
        assert [row[3:5] for row in after["audit"][len(before["audit"]) :]] == [("delete study", slug)]
        if app.extensions["study_database"].is_sqlite:
            content, stays = (
                files(),
                b"/".join(texts(after)),
            )  # pictures that others have, the settings' hash in the log
            told = {text for text in texts(gone) if text not in stays}
            assert len(told) > 10 and [text for text in told if text in content] == []
            assert all(text in content for text in texts(after) if len(text) < 100)  # what is there is found
    assert {name for name, rows in everything(url).items() if rows} == set(STAYS)
    assert {table.name for table in Base.metadata.sorted_tables} >= {*STAYS, "revocation", "identity", "event"}


def test_a_closed_study_goes_with_who_is_in_the_middle(app, clock):
    bot = Bot(app, "paid", clock, random.Random(11))
    bot.enter("?PROLIFIC_PID=5f3c0a9e8b7d6c5b4a392818&STUDY_ID=s&SESSION_ID=t")
    bot.start()
    assert hash_token(bot.token) in str(everything(app.config["DATABASE_URL"])["session"])
    app.extensions["study_admin"].move("paid", "close")
    run = lambda *line, text=None: app.test_cli_runner().invoke(args=["study", *line], input=text)  # noqa: E731
    refused = run("delete", "paid", text="Paid\n")
    assert refused.exit_code == 1 and "paid (closed)  sr3: 0 of 6 finished, 1 active" in refused.output
    assert run("delete", "paid", "--confirm", "paid").output.endswith("paid: deleted\n")
    assert bot.client.get("/s/paid/api/next").status_code == 401
    assert bot.client.get("/s/paid").status_code == 404
