"""Nothing that a client receives tells which picture is which: every byte of whole sessions is looked at."""

import json
import random
import re
from pathlib import Path

import pytest
from sqlalchemy import select

import study_app
from study_app.bots import Bot, _truth, separate
from study_app.models import Stimulus
from study_app.pack import PADDING
from tests.study_app.small_study import make_app, open_study, small_spec

# "catch" is also a word of JavaScript; there, what the server calls things is looked for.
TELLING = re.compile(r"\b(real|fake|gt|hr|catch|generated|model|ground.?truth|foil)\b", re.IGNORECASE)
TELLING_SCRIPT = re.compile(
    r"real_?side|picked_?model|\bfake\b|\bgt\b|image_?id|plan_?trial|stimulus_?id", re.IGNORECASE
)
SECRETS = re.compile(r"sr3|esrgan|bicubic|_place|test_|practice_p|catch_p", re.IGNORECASE)


def words(reply):
    """Everything of a reply that is text, without what is random: tokens, hashes, codes."""
    text = reply.text if reply.mimetype != "application/octet-stream" else ""
    return re.sub(r"[A-Za-z0-9_-]{22,64}", "", f"{reply.status} {reply.headers} {text}")


@pytest.fixture(scope="module", params=[1, 2])
def sessions(request, tmp_path_factory, pack):
    """Two whole sessions of each condition: the replies in order, and the pairs of pictures with the truth."""
    from study_app.clock import ManualClock

    clock = ManualClock()
    app = make_app(f"sqlite:///{tmp_path_factory.mktemp('db') / 's.sqlite'}", clock)
    open_study(app, pack, small_spec(task=request.param))
    replies, pairs = [], []
    for seed in range(12):
        bot = Bot(app, "study", clock, random.Random(seed))
        bot.enter()
        replies += [bot.client.get("/s/study"), bot.start(), bot.client.get("/s/study/run")]
        truth = _truth(app.extensions["study_database"], bot.token)
        while True:
            reply = bot.client.get("/s/study/api/next")
            replies.append(reply)
            if reply.json["state"] != "trials":
                break
            trial = reply.json["window"][0]
            replies.append(bot.fetch(trial))
            pairs.append((trial, separate(replies[-1]), truth[trial["token"]]))
            replies.append(bot.answer(trial, 3000, "left"))
            replies.append(bot.post(f"/api/trials/{trial['token']}/response", {}))
        replies += [bot.post("/api/finish", {"answers": {}}), bot.client.get("/s/study/done"), bot.client.get("/s/x")]
    return replies, pairs


def test_no_word_tells(sessions):
    for reply in sessions[0]:
        text = words(reply)
        assert not TELLING.search(text), TELLING.search(text)
        assert not SECRETS.search(text), SECRETS.search(text)


def test_no_script_knows():
    folder = Path(study_app.__file__).parent / "static"
    files = [path for path in folder.rglob("*") if path.suffix in (".js", ".css", ".svg")]
    assert files
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert not TELLING_SCRIPT.search(text) and not re.search(r"\b(sr3|esrgan)\b", text), path


def test_the_two_pictures_differ_in_their_pixels_alone(sessions):
    for trial, pictures, _ in sessions[1]:
        assert len(pictures["left"]) == len(pictures["right"])
        for picture in pictures.values():
            assert picture.count(PADDING) == (picture is pictures.get("middle"))  # noise needs none
            assert not re.search(rb"tEXt|iTXt|zTXt|iCCP|tIME|eXIf|pHYs", picture)
        assert (trial["width"], trial["height"]) == (32, 32)


def test_order_and_side_say_nothing(sessions):
    """Sides over whole sessions are even, whatever the kind; trials of one kind look like those of another."""
    sides = [side for _, _, (side, _, _) in sessions[1]]
    assert sides.count("left") == sides.count("right")
    shapes = {
        json.dumps({key: type(value).__name__ for key, value in trial.items()}, sort_keys=True)
        for trial, _, (_, kind, _) in sessions[1]
    }
    assert len(shapes) == 1
    assert {trial["phase"] for trial, _, (_, kind, _) in sessions[1] if kind in ("test", "catch")} == {"test"}


def test_tokens_end(pack, clock, tmp_path):
    """A picture can be had from the window until a minute after the answer, by its own session alone."""
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    open_study(app, pack, small_spec())
    bot, other = (Bot(app, "study", clock, random.Random(seed)) for seed in (0, 1))
    for one in (bot, other):
        one.enter()
        one.start()
    window = bot.upcoming()["window"]
    other.upcoming()
    url = f"/s/study/i/{window[0]['token']}"
    get = lambda one: one.client.get(url).status_code  # noqa: E731
    assert (get(bot), get(other), app.test_client().get(url).status_code) == (200, 404, 404)
    bot.answer(window[0], 3000, "left")
    clock.advance(59_999)
    assert get(bot) == 200
    clock.advance(1)
    assert get(bot) == 404
    with app.extensions["study_database"].read() as db:
        assert db.scalar(select(Stimulus.id).limit(1)) is not None
