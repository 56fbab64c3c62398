"""Scripts instead of subjects: what they try, and what the server answers or stores."""

import csv
import io
import itertools
import random
import re
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select, update

from study_app import export
from study_app.allocation import plan
from study_app.bots import Bot, _truth, separate
from study_app.models import Condition, PlanSlot, PlanTrial, Stimulus, Study, Trial
from study_app.noise import decode, noisy
from study_app.pack import Pack, encode
from study_app.preregistration import preregistration
from study_app.spec import EARLY_MS, LATENCY_MS
from study_app.web import RECEIPT
from tests.study_app.small_study import everything, make_app, open_study, small_spec
from tests.study_app.test_dashboard import PASSWORD, log_in

EXPOSURE, FIXATION = 3000, 500


def pixels(png):
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def begin(app, seed=0):
    bot = Bot(app, "study", app.config["CLOCK"], random.Random(seed))
    bot.enter()
    assert bot.start().status_code == 201
    return bot


@pytest.fixture
def site(clock, pack, tmp_path):
    """site(**changes): a running study."""

    def start(**changes):
        app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
        open_study(app, pack, small_spec(questions=(), **changes))
        return app

    return start


def seen(app, bot):
    """A whole session: (kind, pixels left, pixels right, real side) of every trial, and what the middles were."""
    truth = _truth(app.extensions["study_database"], bot.token)
    while (now := bot.upcoming())["state"] == "trials":
        trial = now["window"][0]
        pictures = {place: pixels(png) for place, png in separate(bot.fetch(trial)).items()}
        yield truth[trial["token"]], pictures
        bot.answer(trial, EXPOSURE, "left")


def solved(app, sessions):
    """Test trials that somebody solves who compares several sessions' pixels: what comes twice is the real picture."""
    known, shown = defaultdict(set), []
    for number, bot in enumerate(sessions):
        for (side, kind, _), pictures in seen(app, bot):
            if kind == "test":
                shown.append((number, side, {place: pictures[place].tobytes() for place in ("left", "right")}))
                for place in ("left", "right"):
                    known[pictures[place].tobytes()].add(number)
    twice = [(side, [place for place in pair if known[pair[place]] - {number}]) for number, side, pair in shown]
    return [side for side, places in twice if places == [side]], len(shown)


def test_several_sessions_of_one_person_find_no_pixels_twice(site):
    """Two models: a picture that is the same under both is the real one. Without noise, that solves what both saw."""
    found, trials = solved(app := site(), [begin(app, seed) for seed in range(4)])
    assert (found, trials) == ([], 16)


def test_without_the_noise_they_do(site):
    found, trials = solved(app := site(noise=0), [begin(app, seed) for seed in range(4)])
    assert len(found) >= trials / 2


def test_noise_is_small_even_on_both_sides_and_the_same_when_fetched_again(site, pack):
    app = site(task=1)
    bot = begin(app)
    [first, *_] = bot.upcoming()["window"]
    once = separate(bot.fetch(first))
    assert once == separate(bot.fetch(first)) and len(once["left"]) == len(once["right"])
    real, kind, model = _truth(app.extensions["study_database"], bot.token)[first["token"]]
    assert (kind, model) == ("practice", "sr3")
    changes = {}
    for place in ("left", "right"):
        folder = pack / ("hr" if place == real else "sr3")
        files = [np.asarray(Image.open(folder / f"practice_place/{i:03}.png").convert("RGB"), int) for i in range(2)]
        changes[place] = min((pixels(once[place]) - file for file in files), key=lambda change: np.abs(change).sum())
        shares = [(changes[place] == level).mean() for level in (-1, 0, 1)]
        assert sum(shares) == 1 and shares == pytest.approx([1 / 3] * 3, abs=0.04)
    assert not np.array_equal(changes["left"], changes["right"])


@pytest.mark.parametrize("levels", [1, 2])
def test_noise_is_bounded_and_keyed(levels):
    picture = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 64, 3)))
    png = encode(picture)
    shown = {key: pixels(noisy(decode(png), levels, key)).astype(int) for key in ("a", "b")}
    for values in shown.values():
        change = values - np.asarray(picture)
        assert change.min() == -levels and change.max() == levels and values.min() >= 0 and values.max() <= 255
        share = [(change[10:-10] == step).mean() for step in range(-levels, levels + 1)]
        assert share == pytest.approx([1 / (2 * levels + 1)] * len(share), abs=0.01)
    assert (shown["a"] != shown["b"]).mean() > 0.5
    assert noisy(decode(png), levels, "a") == noisy(decode(png), levels, "a")


class Reply:
    def __init__(self, receipt=""):
        self.headers = {RECEIPT: receipt}


def test_catch_trials_are_not_known_by_what_was_seen_before(site, pack):
    """In one session no picture comes twice: not to the pixel, nor smaller, nor upside down, nor by its colours."""
    app = site(task=1, catch=4, catch_pass=4)
    small = lambda picture: np.asarray(Image.fromarray(picture).resize((4, 4), Image.Resampling.BOX), float).ravel()  # noqa: E731
    shown = []
    for _, pictures in seen(app, begin(app)):
        for place in ("left", "right"):
            shown.append(pictures[place])
    assert len(shown) == 20
    for (i, one), (j, other) in itertools.combinations(enumerate(shown), 2):
        if i // 2 != j // 2:  # a pair is of one image
            for turned in (other, other[::-1, ::-1]):
                assert np.abs(one.astype(int) - turned).mean() > 10
                assert np.corrcoef(small(one), small(turned))[0, 1] < 0.95


def test_pictures_of_later_trials_cannot_be_had(site, clock):
    app = site(exposures_ms=(8000,))
    bot = begin(app)
    window = bot.upcoming()["window"]
    assert [trial["index"] for trial in window] == [0, 1]  # one ahead
    status = lambda trial: bot.fetch(trial).status_code  # noqa: E731
    assert (status(window[0]), status(window[1])) == (200, 409)
    refused = bot.fetch(window[1])
    assert (refused.json["error"], refused.json["retry_after_ms"]) == ("not_yet", 8000)
    bot.show(window[0], bot.fetch(window[0]))
    clock.advance(8000 - 1)
    assert status(window[1]) == 409
    clock.advance(1)
    assert status(window[1]) == 200
    with app.extensions["study_database"].read() as db:
        later = db.scalars(select(Trial.token).join(Trial.planned).where(PlanTrial.idx > 1)).all()
    assert len(later) == 6
    assert {bot.client.get(f"/s/study/i/{token}").status_code for token in later} == {409}  # could anybody guess them


def begins(bot, trial, pictures):
    """Whether the trial may begin with the receipts of these pictures; where not, nothing is written or can be."""
    url = bot.browser.application.config["DATABASE_URL"]
    before = everything(url)
    reply = bot.show(trial, pictures)
    if reply.status_code == 200:
        return True
    assert (reply.status_code, reply.json["error"]) == (409, "not_fetched")
    body = bot.measured(trial, EXPOSURE, "left", 500.0)
    assert bot.post(f"/api/trials/{trial['token']}/response", body).json["error"] == "not_started"
    assert everything(url) == before
    return False


def test_who_has_not_fetched_the_pictures_cannot_answer(site):
    app = site(task=1)
    bot = begin(app)
    trial = bot.upcoming()["window"][0]
    assert not begins(bot, trial, Reply())
    assert app.test_client().get(f"/s/study/i/{trial['token']}").status_code == 404  # nor does another's fetch count
    assert not begins(bot, trial, Reply())
    assert begins(bot, trial, bot.fetch(trial))


def test_a_receipt_is_of_one_trial_in_one_session_and_made_here(site, pack, clock, tmp_path):
    app = site(task=1)
    bot, other = begin(app), begin(app, 1)
    [trial, _], [others, _] = bot.upcoming()["window"], other.upcoming()["window"]
    own, foreign = bot.fetch(trial), other.fetch(others).headers[RECEIPT]
    receipt = own.headers[RECEIPT]
    elsewhere = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock, SECRET_KEY="another")
    forged = elsewhere.extensions["study_keys"].sign("receipt", receipt.rpartition(".")[0])
    for_other_use = app.extensions["study_keys"].sign("cookie", receipt.rpartition(".")[0])
    token, at, signature = receipt.split(".")
    wrong = [foreign, forged, for_other_use, "", ".", "..", "\u00e9.1.x"]
    wrong += [f"{token}.{int(at) - 1}.{signature}", f"{token}.{at}", receipt[:-1]]
    for false in wrong:
        assert not begins(bot, trial, Reply(false))
    # Another process that has the key knows it, and so does this one with the next key.
    after = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock, SECRET_KEY="next", SECRET_KEY_FALLBACKS=["secret"])
    bot.browser.application = after
    assert begins(bot, trial, own)
    with app.extensions["study_database"].read() as db:
        served = db.execute(select(Trial.left_served_at, Trial.started_at).where(Trial.showings > 0)).all()
    assert served == [(int(at), clock())]


REFUSED = {400: "bad_request", 409: "impossible_time"}


@pytest.mark.parametrize(
    ("elapsed", "rt_ms", "status", "timing_ok"),
    [
        (FIXATION + EXPOSURE + 700, 700, 200, 1),  # an honest one
        (FIXATION + EXPOSURE + 700 + LATENCY_MS - 20, 700, 200, 1),  # over a slow line
        (FIXATION + EXPOSURE + 700 + LATENCY_MS + 20, 700, 200, 0),  # looked for longer than it says
        (60_000, 700, 200, 0),
        (EXPOSURE + 700, 700 + EARLY_MS - 20, 200, 1),
        (EXPOSURE + 700, 700 + EARLY_MS + 20, 409, None),  # more time than there was
        (EXPOSURE + 700, 1e15, 400, None),  # longer than a month
    ],
)
def test_both_clocks_must_agree(site, clock, elapsed, rt_ms, status, timing_ok):
    app = site()
    bot = begin(app)
    trial = bot.upcoming()["window"][0]
    fetched = clock()
    pictures = bot.fetch(trial)
    clock.advance(10)
    bot.show(trial, pictures)
    clock.advance(elapsed)
    reply = bot.post(f"/api/trials/{trial['token']}/response", bot.measured(trial, EXPOSURE, "left", rt_ms))
    assert (reply.status_code, reply.json.get("error")) == (status, REFUSED.get(status))
    rows = list(csv.DictReader(io.StringIO(export.responses_csv(app.extensions["study_database"], "study"))))
    assert [int(row["timing_ok"]) for row in rows] == ([timing_ok] if status == 200 else [])
    for row in rows:  # the server's own times
        times = [row["served_at"], row["start_received_at"], row["received_at"]]
        assert times == [export.utc(fetched), export.utc(fetched + 10), export.utc(fetched + 10 + elapsed)]
        assert row["noise"] == "1"


def test_who_reloads_to_look_again_is_flagged(site):
    app = site()
    bot = begin(app)
    for looks in (1, 2, 3):
        trial = bot.upcoming()["window"][0]
        for _ in range(looks - 1):
            assert bot.show(trial, bot.fetch(trial)).status_code == 200
            bot.clock.advance(EXPOSURE)
        assert bot.answer(trial, EXPOSURE, "left").status_code == 200
    rows = list(csv.DictReader(io.StringIO(export.responses_csv(app.extensions["study_database"], "study"))))
    assert [(row["reexposed"], row["timing_ok"]) for row in rows] == [("0", "1"), ("1", "0"), ("1", "0")]


def sides(app, slug="study"):
    """Of every place of the first condition, (kind, image's number, real side) in the order shown."""
    query = select(PlanTrial.slot_id, Stimulus.kind, Stimulus.number, PlanTrial.real_side).join(PlanTrial.stimulus)
    query = query.join(PlanSlot, PlanTrial.slot_id == PlanSlot.id).join(PlanSlot.condition).join(Condition.study)
    query = query.where(Study.slug == slug, Condition.label == "sr3").order_by(PlanTrial.slot_id, PlanTrial.idx)
    places = defaultdict(list)
    with app.extensions["study_database"].read() as db:
        for slot, *trial in db.execute(query):
            places[slot].append(tuple(trial))
    return list(places.values())


def test_the_settings_do_not_tell_the_answers(site, pack):
    """Everything but the salt is public: the source code, the settings with their seed, the pack's order."""
    app, spec, source = site(), small_spec(questions=()), Pack(pack)
    for slug in ("again", "and-again"):
        app.extensions["study_admin"].create(slug, spec, ["sr3"], source.pairs(spec, source.slugs(["sr3"])))
        app.extensions["study_admin"].freeze(slug)
    with app.extensions["study_database"].read() as db:
        salts = dict(db.execute(select(Study.slug, Study.salt)).all())
    assert len(set(salts.values())) == 3 and all(re.fullmatch("[0-9a-f]{32}", salt) for salt in salts.values())

    def planned(salt):
        return [[(t.kind, t.number, t.real_side) for t in place] for place in plan(spec, "sr3", 1, salt)]

    one, two, public = sides(app, "again"), sides(app, "and-again"), planned("")
    for some, others in ((one, two), (one, public), (two, public)):
        assert not any(place in others for place in some)
    assert one == planned(salts["again"])


def test_the_salt_is_told_nowhere(site, tmp_path):
    app = site()
    with app.extensions["study_database"].write() as db:
        db.execute(update(Study).values(salt=(salt := "5a17" * 8)))
    begin(app).take(lambda trial: "left")
    run = lambda *line: app.test_cli_runner().invoke(args=["study", *line])  # noqa: E731
    assert run("export", "study", "--out", str(tmp_path / "r.csv")).exit_code == 0
    admin = app.extensions["study_admin"]
    told = [run("show", "study").output, run("list").output, preregistration(small_spec(), ["sr3"])]
    told += [export.export(admin, "study", table) for table in export.TABLES if table != "choices"]
    app.extensions["study_accounts"].set_password("ada", PASSWORD)
    log_in(client := app.test_client())
    told += [client.get(page).text for page in ("/admin/", "/admin/study", "/admin/study/subjects", "/admin/study/log")]
    assert all("study" in text for text in told) and salt not in "".join(told)
