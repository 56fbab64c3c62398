"""Backups while people answer, and restored ones."""

import random
import threading

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import OperationalError

from study_app.bots import Bot
from study_app.signing import hash_token
from tests.study_app.conftest import new_database
from tests.study_app.small_study import everything, make_app, open_study, small_spec


@pytest.fixture(params=["sqlite", "postgresql"])
def urls(request, tmp_path):
    """Two empty databases of a kind."""
    return [new_database(request, tmp_path / name) for name in ("old", "new")]


def study(app, *arguments):
    result = app.test_cli_runner().invoke(args=["study", *map(str, arguments)])
    return result.exit_code, result.output


def close(app):
    app.extensions["study_database"].engine.dispose()


def test_a_backup_while_people_answer_is_one_moment_of_the_study(urls, clock, pack, tmp_path):
    old, new = (make_app(url, clock) for url in urls)
    open_study(old, pack, small_spec())
    bots = [Bot(old, "study", clock, random.Random(seed)) for seed in range(3)]
    answers, enough, over = [], threading.Event(), threading.Event()

    def answer():
        for bot in bots:
            bot.enter()
            assert bot.start().status_code == 201
            while not over.is_set() and (now := bot.upcoming())["state"] == "trials":
                assert bot.answer(now["window"][0], now["exposure_ms"], "left").status_code == 200
                answers.append(now["window"][0]["token"])
                if len(answers) == 4:
                    enough.set()

    people = threading.Thread(target=answer)
    people.start()
    enough.wait(30)
    before, copy = len(answers), tmp_path / "100 % of #1, or not?"
    assert study(old, "backup", copy) == (0, f"{copy}\n")
    after = len(answers)
    over.set()
    people.join()
    assert study(new, "restore", copy)[0] == 0
    restored = everything(urls[1])
    assert [everything(url)["audit"][-1][2:] for url in urls] == [
        ("command line", action, "", copy.name) for action in ("backup", "restore")
    ]
    assert before <= len(restored["response"]) <= after + 1
    lived = {name: set(rows) for name, rows in everything(urls[0]).items()}
    for name in ("study", "condition", "stimulus", "plan_trial", "participant", "response"):
        assert set(restored[name]) <= lived[name]
    assert len(restored["stimulus"]) == len(lived["stimulus"])
    tokens = {row[3]: row[0] for row in restored["trial"]}
    answered = {row[1] for row in restored["response"]}
    assert {tokens[token] for token in answers[:before]} <= answered
    copied = {row[3] for row in restored["session"]}
    assert hash_token(bots[0].token) in copied
    for bot in bots:  # who was under way when the copy was made goes on with it
        other = Bot(new, "study", clock, random.Random(9))
        signed = new.extensions["study_keys"].sign("cookie", bot.token)
        other.browser.set_cookie("study", signed, path="/s/study")
        status = 200 if hash_token(bot.token) in copied else 401  # 401: began after the copy
        assert other.browser.get("/s/study/api/next").status_code == status
    bot = Bot(new, "study", clock, random.Random(10))
    bot.enter()
    assert bot.start().status_code == 201
    assert bot.take(lambda trial: "left")
    for app in (old, new):
        close(app)


def test_nothing_is_overwritten(urls, clock, pack, tmp_path):
    old, new = (make_app(url, clock) for url in urls)
    for app in (old, new):
        open_study(app, pack, small_spec())
    copy = tmp_path / "copy"
    assert study(old, "backup", copy)[0] == 0
    content, rows = copy.read_bytes(), everything(urls[1])
    assert study(old, "backup", copy) == (1, f"Error: {copy} already exists\n")
    code, output = study(new, "restore", copy)
    assert code == 1 and "already holds studies; restore into an empty database" in output
    assert copy.read_bytes() == content and everything(urls[1]) == rows
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["copy"]
    for app in (old, new):
        close(app)


@pytest.mark.parametrize("content", ["nothing", "text", "half", "another"])
def test_what_is_no_backup_is_refused(urls, clock, pack, tmp_path, content):
    old, new = (make_app(url, clock) for url in urls)
    open_study(old, pack, small_spec())
    copy = tmp_path / "copy"
    assert study(old, "backup", copy)[0] == 0
    if content == "nothing":
        copy.unlink()
    elif content == "text":
        copy.write_text("responses")
    elif content == "half":
        copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])
    else:
        copy.unlink()
        engine = create_engine(f"sqlite:///{copy}")
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE study (id INTEGER)"))
        engine.dispose()
    code, output = study(new, "restore", copy)
    assert code == 1 and output.startswith("Error: ") and output.count("\n") == 1
    assert not any(everything_there(urls[1]).values())
    for app in (old, new):
        close(app)


def everything_there(url):
    """Every row of a database that may have no tables, and may have no file."""
    engine = create_engine(url)
    try:
        tables = inspect(engine).get_table_names()
    except OperationalError:
        return {}
    finally:
        engine.dispose()
    return everything(url) if tables else {}


def test_postgresql_without_its_tools_says_what_to_install(clock, tmp_path, monkeypatch):
    app = make_app("postgresql+psycopg://study@/study?host=/nowhere", clock)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "pg_dump is missing: install PostgreSQL's client programs" in study(app, "backup", tmp_path / "copy")[1]
    assert not list(tmp_path.iterdir())
