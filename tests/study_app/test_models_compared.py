"""Pairs of models without the real picture: balanced, answered by ties too, exported as choices, analysed."""

import hashlib
import io
import json
import random
import re
import shutil
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from alembic import command
from PIL import Image
from sqlalchemy import select, text
from statsmodels.stats.proportion import proportion_confint

from analysis import tables
from analysis.exclusions import exclude
from analysis.preference import bradley_terry, pair_rates, win_rates
from sr3eval.errors import UserError
from study_app import export
from study_app.bots import Bot
from study_app.database import migrations
from study_app.models import PlanTrial, Session, Stimulus, Trial
from study_app.pack import Pack
from study_app.signing import hash_token
from study_app.spec import Criterion
from tests.study_app.small_study import make_app, open_study, photograph, small_spec, write_pack
from tests.study_app.test_dashboard import cells, log_in

MODELS = ["sr3", "esrgan (x4)", "bicubic"]
PAIRS = list(combinations(MODELS, 2))
STRENGTH = {"sr3": 3.0, "esrgan (x4)": 2.0, "bicubic": 1.0}
DESIGN = {"compare": "models", "mode": "within", "images": 12, "per_subject": 6, "target": 6}


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """Outputs of three models, and no real pictures."""
    folder = write_pack(tmp_path_factory.mktemp("pack"), test=12)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"format": 2, "methods": manifest["methods"] | {"bicubic": "bicubic"}}
    for item in manifest["items"]:
        path = folder / "bicubic" / f"{item['image_id']}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph("b" + item["image_id"]).save(path)
        item["sha256"]["bicubic"] = hashlib.sha256(path.read_bytes()).hexdigest()
        item["group"] = item["image_id"][-1]
        del item["sha256"]["hr"]
    shutil.rmtree(folder / "hr")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def new_study(clock, pack, url, models=MODELS, **changes):
    app = make_app(url, clock)
    with app.extensions["study_database"].write() as db:
        if db.bind.dialect.name == "postgresql":  # after many studies
            db.execute(text("ALTER SEQUENCE stimulus_id_seq RESTART 9000000"))
    open_study(app, pack, small_spec(**{**DESIGN, **changes}), models=models)
    return app


def take(app, clock, seed, choose, slug="study"):
    """One subject, who answers as choose(left, right, kind) says, for each criterion; catch trials correctly."""
    bot = Bot(app, slug, clock, random.Random(seed))
    bot.enter()
    if bot.start().status_code != 201:
        return False
    query = select(Trial.token, PlanTrial.real_side, Stimulus.kind, Stimulus.model, Stimulus.rival).join(Trial.planned)
    query = query.join(PlanTrial.stimulus).join(Session, Trial.session_id == Session.id)
    with app.extensions["study_database"].read() as db:
        rows = db.execute(query.where(Session.token_sha256 == hash_token(bot.token))).all()
    shown = {token: (side, kind, model, rival) for token, side, kind, model, rival in rows}
    while (now := bot.upcoming())["state"] == "trials":
        trial = now["window"][0]
        side, kind, model, rival = shown[trial["token"]]
        left, right = (rival, model) if side == "left" else (model, rival)
        answers = [side if kind == "catch" else choose(left, right, criterion) for criterion in now["criteria"]]
        bot.show(trial, bot.fetch(trial))
        clock.advance(now["exposure_ms"] + 500 + 700 * len(answers[1:]))
        body = bot.measured(trial, now["exposure_ms"], answers[0], 500.0)
        rest = zip(now["criteria"][1:], answers[1:], strict=True)
        body["further"] = [{"criterion": name, "choice": answer, "rt_ms": 700.0} for name, answer in rest]
        reply = bot.post(f"/api/trials/{trial['token']}/response", body)
        assert (reply.status_code, reply.json["correct"]) == (200, None), reply.text
    assert bot.post("/api/finish", {"answers": {}}).status_code == 200
    return True


def stronger(left, right, criterion):
    """The stronger is chosen; neighbours tie; by the second criterion it is the other way round."""
    if abs(STRENGTH[left] - STRENGTH[right]) == 1 and criterion == "faithful":
        return "tie"
    return "left" if STRENGTH[left] > STRENGTH[right] else "right"


def exported(app, tmp_path):
    name = export.answers_table(app.extensions["study_database"], "study")
    content = export.TABLES[name](app.extensions["study_database"], "study")
    assert name == "choices"
    (tmp_path / "choices.csv").write_text(content)
    return tables.load_choices(tmp_path / "choices.csv")


def assert_the_dashboard_says(app, kept):
    """Win rates as the analysis of what counts has them, of each picture, too; every page of such a study is there."""
    rates = win_rates(kept, ["criterion"])
    app.extensions["study_accounts"].set_password("ada", "correct horse battery")
    client = app.test_client()
    assert log_in(client).status_code == 303
    shown = [row[1:4] for row in cells(client.get("/admin/study")) if len(row) == 10 and row[0] != "Condition"]
    assert shown == [[r.criterion, r.model, f"{100 * r.win_rate:.1f} %"] for r in rates.itertuples()]
    assert all(client.get(f"/admin/study/{page}").status_code == 200 for page in ("subjects", "payments"))
    images = [row for row in cells(client.get("/admin/study/images"))[1:] if row[2] == "test"]
    expected = {}
    for key, part in kept.groupby(["image_id", "criterion"]):
        for row in pair_rates(part, ["criterion"]).itertuples():
            names, share = (row.model_a, row.model_b), row.win_rate
            if names not in PAIRS:
                names, share = names[::-1], 1 - share
            expected[(key[0], " or ".join(names), key[1])] = (share, row.n, row.ties)
    assert sorted((row[0], row[1], row[3]) for row in images) == sorted(expected)
    for name, pair, _, criterion, *_, chosen, interval, _, n, ties in images:
        share, count, tied = expected[name, pair, criterion]
        low, high = proportion_confint(share * count, count, method="wilson")
        assert (chosen, n, ties) == (f"{100 * share:.1f} %", str(count), str(tied))
        assert interval == f"{100 * abs(low):.1f} % to {100 * high:.1f} %"
    assert client.get("/admin/study/export/choices").text == export.choices_csv(
        app.extensions["study_database"], "study"
    )


def test_every_pair_and_side_is_even_and_the_choices_come_out(clock, pack, url, tmp_path):
    criteria = (Criterion("sharper", "Which is sharper?"), Criterion("faithful", "Which is more faithful?"))
    app = new_study(clock, pack, url, criteria=criteria, tie="No difference", skip="Cannot say", exposures_ms=(500,))
    for seed in range(6):
        assert take(app, clock, seed, stronger)
    assert not take(app, clock, 6, stronger)  # every place is filled
    choices = exported(app, tmp_path)
    tests = choices[(choices["kind"] == "test") & (choices["criterion"] == "sharper")]
    pairs = [tuple(sorted(pair)) for pair in tests[["model_left", "model_right"]].itertuples(index=False)]
    assert Counter(pairs) == {tuple(sorted(pair)): 12 for pair in PAIRS}
    assert set(Counter(zip(tests["subject"], pairs, strict=True)).values()) == {2}
    assert set(Counter(zip(tests["image_id"], pairs, strict=True)).values()) == {1}
    assert Counter(zip(tests["model_left"], tests["model_right"], strict=True)) == {
        pair: 6 for a, b in PAIRS for pair in ((a, b), (b, a))
    }
    assert set(Counter(tests["subject"] + tests["image_id"]).values()) == {1}
    assert (tests["group"] == tests["image_id"].str[-1]).all() and len(choices) == 2 * 6 * (6 + 2 + 2)
    chosen = tests["model_left"].where(tests["choice_side"] == "left", tests["model_right"])
    assert (tests["chosen"] == chosen).all() and "picked_model" not in tests
    catch = choices[choices["kind"] == "catch"]
    assert (catch["choice_side"] == catch["real_side"]).all() and (catch["model_left"] == "").all()
    kept, log = exclude(choices)
    assert log.empty and len(kept) == 72
    rates = pair_rates(kept, ["criterion"]).set_index(["criterion", "model_a", "model_b"])
    assert rates["win_rate"].to_dict() == {
        ("faithful", "bicubic", "esrgan (x4)"): 0.5,
        ("faithful", "bicubic", "sr3"): 0,
        ("faithful", "esrgan (x4)", "sr3"): 0.5,
        ("sharper", "bicubic", "esrgan (x4)"): 0,
        ("sharper", "bicubic", "sr3"): 0,
        ("sharper", "esrgan (x4)", "sr3"): 0,
    }
    assert "never lost" in bradley_terry(kept, ["criterion"])["note"].iloc[-1]
    assert_the_dashboard_says(app, kept)
    app.extensions["study_database"].engine.dispose()


def test_a_subset_of_pairs_between_subjects(clock, pack, tmp_path):
    pairs = (("sr3", "bicubic"), ("bicubic", "esrgan (x4)"))
    url = f"sqlite:///{tmp_path / 's.sqlite'}"
    app = new_study(clock, pack, url, pairs=pairs, mode="between", target=2, per_subject=6)
    assert [count.condition for count in app.extensions["study_admin"].counts()] == [
        "sr3 or bicubic",
        "bicubic or esrgan (x4)",
    ]
    assert [take(app, clock, seed, stronger) for seed in range(5)] == [True] * 4 + [False]
    tests = exported(app, tmp_path).query("kind == 'test'")
    shown = Counter(frozenset(pair) for pair in tests[["model_left", "model_right"]].itertuples(index=False))
    assert shown == {frozenset(pair): 12 for pair in pairs}


def test_what_there_is_no_button_for_is_refused(clock, pack, tmp_path):
    app = new_study(clock, pack, f"sqlite:///{tmp_path / 's.sqlite'}", tie="Same")
    bot = Bot(app, "study", clock, random.Random(0))
    bot.enter()
    bot.start()
    page = bot.client.get("/s/study/run").text
    shown = re.sub(r"[\w-]{22}", "", page + json.dumps(bot.upcoming()))  # without random tokens, which spell anything
    assert not re.search("sr3|esrgan|bicubic|model", shown, re.IGNORECASE)
    assert "If you are not sure" not in page  # there is a button for that
    assert 'data-choice="tie" disabled>Same' in page and 'data-choice="skip"' not in page
    assert "different programs" in small_spec(**DESIGN).debrief
    trial = bot.upcoming()["window"][0]
    bot.show(trial, bot.fetch(trial))
    clock.advance(3500)
    body = bot.measured(trial, 3000, "skip", 500.0)
    further = {"further": [{"criterion": "x", "choice": "left", "rt_ms": 1.0}]}
    for wrong in (body, {**body, "choice": "left", **further}):
        reply = bot.post(f"/api/trials/{trial['token']}/response", wrong)
        assert (reply.status_code, reply.json["error"]) == (400, "bad_request")
    assert bot.post(f"/api/trials/{trial['token']}/response", {**body, "choice": "tie"}).status_code == 200


def test_pictures_of_a_pair_are_the_two_models(pack):
    spec, source = small_spec(**DESIGN), Pack(pack)
    pairs = list(source.pairs(spec, source.slugs(MODELS)))
    assert Counter((p.model, p.rival) for p in pairs if p.kind == "test") == dict.fromkeys(PAIRS, 12)
    for pair in pairs:
        if pair.model:
            for png, model in ((pair.other, pair.model), (pair.real, pair.rival)):
                path = pack / source.slugs([model])[model] / f"{pair.image_id}.png"
                assert Image.open(io.BytesIO(png)).tobytes() == Image.open(path).convert("RGB").tobytes()


def test_adaptive_pairs_go_where_the_order_is_uncertain(clock, pack, url, tmp_path):
    """Images and sides stay as planned; of the pairs, that of equals is shown more often once there are choices."""
    design = {"adaptive": True, "per_subject": 12, "exposures_ms": (500,)}
    app = new_study(clock, pack, url, **design)
    rng = random.Random(0)

    def equals(left, right, _):
        if "bicubic" in (left, right):
            return "right" if left == "bicubic" else "left"
        return rng.choice(["left", "right"])

    for seed in range(6):
        assert take(app, clock, seed, equals)
    tests = exported(app, tmp_path).query("kind == 'test'")
    counts = Counter(tuple(sorted(pair)) for pair in tests[["model_left", "model_right"]].itertuples(index=False))
    hard = counts.pop(("esrgan (x4)", "sr3"))
    assert sum(counts.values()) + hard == 72 and hard >= 30 and min(counts.values()) >= 12
    assert set(Counter(tests["subject"] + tests["image_id"]).values()) == {1}
    first = tests[tests["subject"] == tests["subject"].iloc[0]]
    assert len(set(Counter(first["model_left"] + first["model_right"]).values())) == 1  # nobody had chosen yet
    app.extensions["study_database"].engine.dispose()


def test_an_abandoned_place_keeps_its_pairs(clock, pack, tmp_path):
    """What the first subject on it answered was about these."""
    app = new_study(clock, pack, f"sqlite:///{tmp_path / 's.sqlite'}", adaptive=True, exposures_ms=(500,))
    take(app, clock, 0, stronger)
    planned = lambda: sorted(map(tuple, plan_of(app)))  # noqa: E731
    spec = app.extensions["study_service"].overview("study").spec
    for _ in range(spec.target):  # the last one takes the place of the first of these
        bot = Bot(app, "study", clock, random.Random(1))
        bot.enter()
        before = planned()
        assert bot.start().status_code == 201
        clock.advance(8 * 24 * 3_600_000)
    assert planned() == before


def plan_of(app):
    with app.extensions["study_database"].read() as db:
        return db.execute(select(PlanTrial.id, PlanTrial.stimulus_id).order_by(PlanTrial.id)).all()


def test_a_step_back_refuses_what_it_cannot_hold(clock, pack, url):
    app = new_study(clock, pack, url)
    database = app.extensions["study_database"]
    database.engine.dispose()
    refusal = pytest.raises(UserError, match="cannot hold studies of pairs of models: study")
    with refusal, database.migrating() as connection:
        command.downgrade(migrations(connection), "0003")


def test_studies_against_one_model_get_it_as_rival(clock, pack, url):
    app = make_app(url, clock)
    open_study(app, pack, small_spec(against="bicubic", images=8), models=["sr3"])
    database = app.extensions["study_database"]
    rivals = text("SELECT kind, rival, count(*) FROM stimulus GROUP BY kind, rival ORDER BY kind")
    with database.read() as db:
        before = db.execute(rivals).all()
    assert before == [("catch", "", 2), ("practice", "bicubic", 2), ("test", "bicubic", 8)]
    database.engine.dispose()
    with database.migrating() as connection:
        command.downgrade(migrations(connection), "0003")
        command.upgrade(migrations(connection), "head")
        assert connection.execute(rivals).all() == before
        assert connection.execute(text("SELECT rival FROM condition")).scalar() == "bicubic"


def test_the_command_writes_choices(clock, pack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    settings = (
        'title = "T"\ntask = 2\ncompare = "models"\npairs = [["sr3", "bicubic"]]\nquestion = "Which is better?"\n'
    )
    settings += "images = 12\nper_subject = 6\ntarget = 2\npractice = 2\ncatch = 2\ncatch_pass = 2\n"
    Path("study.toml").write_text(settings)
    run = lambda *line: app.test_cli_runner().invoke(args=["study", *map(str, line)])  # noqa: E731
    result = run("create", pack, "--study", "study.toml")
    assert "draft with sr3, bicubic" in result.output, result.output
    assert run("freeze", "study").exit_code == run("run", "study").exit_code == 0
    assert take(app, clock, 0, stronger)
    assert run("export", "study").output == "choices.csv\n"
    assert set(tables.load_choices("choices.csv")["chosen"]) == {"sr3", ""}
