"""From the command line to responses.csv and back."""

import csv
import hashlib
import io
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from PIL import Image
from sqlalchemy import select

from analysis import tables
from analysis.exclusions import Rules, exclude
from analysis.fool_rate import fool_rates
from sr3eval.errors import UserError
from study_app import export
from study_app.bots import Bot, _truth, simulate
from study_app.models import Participant, Response, Session, Stimulus, Trial
from study_app.signing import hash_token
from tests.study_app.small_study import everything, make_app, open_study, small_spec

RATES = {"sr3": 0.5, "esrgan (x4)": 0.2}
COLUMNS = (
    "study,task,condition,model,exposure_ms,subject,image_id,kind,trial_index,real_side,choice_side,picked_model,rt_ms,"
    "exposure_actual_ms,timing_ok,finished,excluded_reason,received_at"
)


@pytest.fixture
def app(clock, pack, tmp_path):
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    open_study(app, pack, small_spec())
    return app


def rows_of(app, slug="study"):
    return list(csv.DictReader(io.StringIO(export.responses_csv(app.extensions["study_database"], slug))))


def test_with_drop_outs_every_cell_is_exact_at_the_end(app, clock):
    assert simulate(app, "study", RATES, seed=0, clock=clock, drop_outs=0.3) == 12
    rows = rows_of(app)
    tests = [row for row in rows if row["kind"] == "test" and row["finished"] == "1"]
    assert set(Counter((row["model"], row["image_id"]) for row in tests).values()) == {3}
    sides = Counter((row["model"], row["image_id"], row["real_side"]) for row in tests)
    assert set(sides.values()) == {1, 2}
    assert set(Counter((row["subject"], row["real_side"]) for row in tests).values()) == {2}
    unfinished = [row for row in rows if row["finished"] == "0"]
    assert unfinished  # what drop-outs answered is there
    assert {(row["finished"], row["excluded_reason"]) for row in rows} == {("1", ""), ("0", "expired")}


def assert_balanced(rows):
    """12 subjects count: each model's 8 images 3 times, sides even in a subject, and but for one in an image."""
    tests = [row for row in rows if row["kind"] == "test" and row["finished"] == "1" and not row["excluded_reason"]]
    assert set(Counter((row["model"], row["image_id"]) for row in tests).values()) == {3}
    assert len(Counter((row["model"], row["image_id"]) for row in tests)) == 16
    assert set(Counter((row["model"], row["image_id"], row["real_side"]) for row in tests).values()) == {1, 2}
    assert set(Counter((row["subject"], row["real_side"]) for row in tests).values()) == {2}


def test_who_fails_is_replaced_until_every_condition_is_full_in_exact_balance(app, clock):
    finished = simulate(app, "study", RATES, seed=0, clock=clock, drop_outs=0.2, catch_rate=0.8)
    rows = rows_of(app)
    failed = {row["subject"] for row in rows if row["excluded_reason"] == "failed_catch"}
    assert failed and finished == 12 + len(failed)
    assert_balanced(rows)
    right = Counter(row["subject"] for row in rows if row["kind"] == "catch" and row["picked_model"] == "0")
    assert all((right[row["subject"]] < 2) == (row["subject"] in failed) for row in rows if row["finished"] == "1")

    def study(*line, code=0):
        result = app.test_cli_runner().invoke(args=["study", *line])
        assert result.exit_code == code, result.output
        return result.output

    assert study("list").count("6 of 6 finished, 0 active") == 2
    study("close", "study")
    chosen = sorted({row["subject"] for row in rows if row["finished"] == "1"} - failed)[:3]
    assert "only places of finished sessions" in study("reopen", "study", chosen[0], failed.pop(), code=1)
    assert "3 places free again" in study("reopen", "study", *chosen, "--reason", "improbable")
    assert "0 places" in study("reopen", "study")
    study("run", "study")
    assert simulate(app, "study", RATES, seed=1, clock=clock) == 3
    rows = rows_of(app)
    assert_balanced(rows)
    assert {row["subject"] for row in rows if row["excluded_reason"] == "improbable"} == set(chosen)


def test_who_leaves_at_the_last_page_does_not_count_beside_the_next_on_the_place(app, clock, tmp_path):
    """All answers are there, but the place is another's: what the rules keep is balanced exactly."""
    for seed in range(3):
        bot = Bot(app, "study", clock, random.Random(100 + seed))
        bot.enter()
        assert bot.start().status_code == 201
        truth = _truth(app.extensions["study_database"], bot.token)
        for _ in truth:
            trial = bot.upcoming()["window"][0]
            assert bot.answer(trial, 3000, truth[trial["token"]][0]).status_code == 200
    (tmp_path / "r.csv").write_text(export.responses_csv(app.extensions["study_database"], "study"))
    assert len(exclude(tables.load(tmp_path / "r.csv"))[0]) == 12  # as long as nobody else is on their places
    clock.advance(46 * 60_000)
    assert simulate(app, "study", RATES, seed=0, clock=clock) == 12
    (tmp_path / "r.csv").write_text(export.responses_csv(app.extensions["study_database"], "study"))
    kept, log = exclude(tables.load(tmp_path / "r.csv"), Rules(max_side_share=1, drop_flagged_trials=False))
    assert list(log["rule"]) == ["study: expired"] * 3 and set(log["n"]) == {4}
    assert set(kept.groupby(["model", "image_id"]).size()) == {3} and len(kept) == 48
    assert set(kept.groupby(["subject", "real_side"]).size()) == {2}


def test_without_replacement_the_failed_keep_their_places_until_reopened(app, clock, pack):
    open_study(app, pack, small_spec(replace_failed=False), slug="kept")
    assert simulate(app, "kept", RATES, seed=0, clock=clock, catch_rate=0.5) == 12
    failed = {row["subject"] for row in rows_of(app, "kept") if row["excluded_reason"] == "failed_catch"}
    assert 0 < len(failed) < 12
    assert app.extensions["study_admin"].reopen("kept", []) == len(failed)
    assert simulate(app, "kept", RATES, seed=1, clock=clock) == len(failed)
    assert_balanced(rows_of(app, "kept"))


def test_within_subjects_every_model_and_side_is_even(clock, pack, tmp_path):
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    open_study(app, pack, small_spec(mode="within", target=8, exposures_ms=(1000, 3000)))
    assert simulate(app, "study", RATES, seed=0, clock=clock) == 16
    tests = [row for row in rows_of(app) if row["kind"] == "test"]
    assert {row["condition"] for row in tests} == {"all 1 s", "all 3 s"}
    assert set(Counter((row["subject"], row["model"], row["real_side"]) for row in tests).values()) == {1}
    assert set(
        Counter((row["condition"], row["image_id"], row["model"], row["real_side"]) for row in tests).values()
    ) == {1}
    assert set(Counter((row["subject"], row["image_id"]) for row in tests).values()) == {1}


def test_columns_and_what_they_mean(app, clock, pack):
    bot = Bot(app, "study", clock, random.Random(0))
    bot.enter()
    bot.start()
    bot.take(lambda trial: "left")
    rows = rows_of(app)
    assert ",".join(rows[0]).startswith(COLUMNS)
    assert [int(row["trial_index"]) for row in rows] == list(range(8))
    for row in rows:
        assert (row["study"], row["task"], row["condition"], row["exposure_ms"]) == ("study", "2", "sr3", "3000")
        assert row["picked_model"] == str(int(row["real_side"] != row["choice_side"]))
        assert row["model"] == ("" if row["kind"] == "catch" else "sr3")
        if row["kind"] == "test":
            packed = Image.open(pack / "sr3" / f"{row['image_id']}.png").convert("RGB")
            assert row["shown_sha256"] == hashlib.sha256(packed.tobytes()).hexdigest()
        assert row["received_at"].endswith("Z") and row["received_at"] > row["start_received_at"] >= row["served_at"]
        assert (row["timing_ok"], row["reexposed"]) == ("1", "0")
    assert rows[0]["excluded_reason"] == "failed_catch"  # of two catch trials one has its real picture on the right


def test_models_compared_with_one_another(clock, pack, url, tmp_path):
    """Without real pictures: one model stands in their place, practice says nothing, rates have names of their own."""
    pack = Path(shutil.copytree(pack, tmp_path / "pack"))
    manifest = json.loads((pack / "manifest.json").read_text())
    for item in manifest["items"]:
        del item["sha256"]["hr"]
    (pack / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(pack / "hr")
    app = make_app(url, clock)
    spec = small_spec(task=1, against="esrgan (x4)", target=40)
    open_study(app, pack, spec, models=["sr3"])
    bot = Bot(app, "study", clock, random.Random(0))
    bot.enter()
    bot.start()
    page = bot.client.get(f"{bot.base}/run").text
    assert "There are no wrong answers" in page and "was correct" not in page
    trial = bot.upcoming()["window"][0]
    assert bot.answer(trial, 3000, "left").json["correct"] is None
    assert simulate(app, "study", {"sr3": 0.75}, seed=0, clock=clock) >= 39
    exported = tmp_path / "responses.csv"
    exported.write_text(export.responses_csv(app.extensions["study_database"], "study"))
    tests = [row for row in rows_of(app) if row["kind"] == "test"]
    assert {row["against"] for row in tests} == {"esrgan (x4)"}
    rates = fool_rates(tables.load(exported), by=["task", "model"])
    assert list(rates["model"]) == ["sr3 against esrgan (x4)"]
    assert rates["fool_rate"].item() == pytest.approx(0.75, abs=0.12)
    with app.extensions["study_database"].read() as db:
        stored = {(s.model, s.image_id, s.kind): s.real_png for s in db.scalars(select(Stimulus))}
    shown = Image.open(io.BytesIO(stored["sr3", "test_place/000", "test"]))
    theirs = Image.open(pack / "esrgan_x4" / "test_place" / "000.png")
    assert shown.tobytes() == theirs.convert("RGB").tobytes()
    assert "different programs" in spec.debrief and "camera" not in spec.debrief


def test_timing_rule(app, clock):
    bot = Bot(app, "study", clock, random.Random(0))
    bot.enter()
    bot.start()
    cases = [
        ({"exposure_ms": 3050}, 1),
        ({"exposure_ms": 3050.1}, 0),
        ({"exposure_ms": 2949.9}, 0),
        ({"hidden_ms": 0.1}, 0),
        ({"frame_max_gap_ms": 100}, 1),
        ({"frame_max_gap_ms": 100.1}, 0),
    ]
    for change, _ in cases:
        trial = bot.upcoming()["window"][0]
        bot.show(trial, bot.fetch(trial))
        clock.advance(3500)
        body = {**bot.measured(trial, 3000, "left", 400), **change}
        assert bot.post(f"/api/trials/{trial['token']}/response", body).status_code == 200
    assert [int(row["timing_ok"]) for row in rows_of(app)] == [ok for _, ok in cases]


def as_its_column_says(cell, column):
    """The value of a cell, read as the codebook describes it."""
    kinds = column["type"] if isinstance(column["type"], list) else [column["type"]]
    if cell == "" and "null" in kinds:
        return None
    return {"string": str, "integer": int, "number": float}[kinds[0]](cell)


def test_every_column_is_in_the_codebook_and_every_cell_is_what_it_says(app, clock):
    simulate(app, "study", RATES, seed=0, clock=clock, subjects=3, drop_outs=0.5)
    bot = Bot(app, "study", clock, random.Random(9))
    bot.enter()
    bot.start()
    bot.post(
        "/api/events",
        {"events": [{"seq": 5, "type": "blur", "t": 1.5, "detail": "=1"}, {"seq": 4, "type": "x", "t": 1}]},
    )
    bot.take(lambda trial: "left")
    database, admin = app.extensions["study_database"], app.extensions["study_admin"]
    with database.read() as db:
        codes = dict(db.execute(select(Participant.code, Session.completion_code).join(Session.participant)).all())
        first = db.scalars(select(Participant.code).order_by(Participant.id)).first()
    admin.delete_participant(first)
    schema = json.loads(export.codebook_json(database, "study"))
    Draft202012Validator.check_schema(schema)
    for table, described in schema["properties"].items():
        rows = list(csv.DictReader(io.StringIO(export.TABLES[table](database, "study"))))
        columns = described["items"]["properties"]
        assert rows and list(rows[0]) == list(columns)
        typed = [{name: as_its_column_says(cell, columns[name]) for name, cell in row.items()} for row in rows]
        Draft202012Validator(described).validate(typed)
        if table == "sessions":
            assert {row["subject"]: row["completion_code"] or None for row in rows} == codes
            assert None in codes.values() and set(codes.values()) != {None}
        if table == "events":
            assert [(row["seq"], row["type"], row["detail"]) for row in rows] == [("4", "x", ""), ("5", "blur", "'=1")]


def test_cells_are_no_formulas():
    text = export.to_csv(["a"], [["=1+1"], ["+1"], ["-x"], ["@x"], ["a=b"], [-1.5], [True], [None]])
    assert text.split("\n") == ["a", "'=1+1", "'+1", "'-x", "'@x", "a=b", "-1.5", "1", '""', ""]


def test_the_whole_way_by_command(pack, clock, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)

    def study(*line, code=0):
        result = app.test_cli_runner().invoke(args=["study", *map(str, line)])
        assert result.exit_code == code, result.output
        return result.output

    sizes = {"images": 8, "per_subject": 4, "target": 2, "practice": 2, "catch": 2, "catch_pass": 2, "zoom": 1}
    create = ["create", pack, "--study", "demo_task1"]
    create += [part for key, value in sizes.items() for part in ("--set", f"{key}={value}")]
    assert "next: flask --app study_app study freeze demo_task1" in study(*create)
    study(*create, "--models", "sr3")  # a draft can be made anew
    assert "freeze it first" in study("run", "demo_task1", code=1)
    study("freeze", "demo_task1")
    before = everything(app.config["DATABASE_URL"])
    assert 'demo_task1" is frozen: what it shows cannot change' in study(*create, code=1)
    assert "only a draft can be frozen" in study("freeze", "demo_task1", code=1)
    assert 'did you mean "demo_task1"' in study("run", "demo_task2", code=1)
    assert everything(app.config["DATABASE_URL"]) == before
    assert "/s/demo_task1" in study("run", "demo_task1")
    assert simulate(app, "demo_task1", RATES, 0, clock) == 2
    assert "2 of 2 finished, 0 active" in study("list")
    study("pause", "demo_task1")
    study("run", "demo_task1")
    study("close", "demo_task1")
    assert "is closed: cannot run it" in study("run", "demo_task1", code=1)
    assert "per_subject = 4" in study("show", "demo_task1")
    study("export", "demo_task1", "--sessions", "sessions.csv")
    assert Path("responses.csv").read_text() == export.responses_csv(app.extensions["study_database"], "demo_task1")
    assert len(Path("sessions.csv").read_text().splitlines()) == 3
    study("export", "demo_task1", "--events", "events.csv", "--codebook", "codebook.json")
    assert json.loads(Path("codebook.json").read_text())["properties"].keys() == {"responses", "sessions", "events"}
    log = [(actor, action, what) for _, _, actor, action, what, _ in everything(app.config["DATABASE_URL"])["audit"]]
    assert {actor for actor, *_ in log} == {"command line"} and {what for *_, what in log} == {"demo_task1"}
    verbs = ["create", "create", "freeze", "run", "pause", "run", "close"]
    assert [action for _, action, _ in log] == verbs + ["export"] * 5
    assert "no participant" in study("delete-participant", "nobody", code=1)


def bytes_of(folder):
    return b"".join(path.read_bytes() for path in folder.glob("s.sqlite*"))


def test_what_is_deleted_leaves_no_byte(clock, pack, tmp_path):
    """Neither in the file nor in its log: free text, events, the device and the answers of whoever asks for it."""
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    open_study(app, pack, small_spec(target=4))
    simulate(app, "study", RATES, 0, clock, subjects=3)
    bot = Bot(app, "study", clock, random.Random(7))
    bot.enter()
    bot.start()
    for seq in range(40):  # pages of them
        event = {"seq": seq, "type": "seldom", "t": 1, "detail": f"event number {seq} of a rare person " * 9}
        bot.post("/api/events", {"events": [event]})
    while (now := bot.upcoming())["state"] == "trials":
        trial = now["window"][0]
        bot.answer(trial, now["exposure_ms"], "left")
        clock.advance(90_000)
    told = "I live in a lighthouse. " * 80
    assert bot.post("/api/finish", {"answers": {"how": told}}).status_code == 200
    with app.extensions["study_database"].read() as db:
        mine = select(Response).join(Response.trial).join(Session, Trial.session_id == Session.id)
        token = hash_token(bot.token)
        answers = [row.client_uuid for row in db.scalars(mine.where(Session.token_sha256 == token))]
        code = db.scalar(select(Session.completion_code).where(Session.token_sha256 == token))
    secrets = [b"lighthouse", b"rare person", b"seldom", token.encode(), *map(str.encode, answers)]
    assert len(answers) == 8 and all(secret in bytes_of(tmp_path) for secret in secrets)
    app.extensions["study_admin"].delete_participant(code)
    assert [secret for secret in secrets if secret in bytes_of(tmp_path)] == []


def test_while_somebody_reads_nothing_is_deleted_by_halves(app, clock):
    assert simulate(app, "study", RATES, 0, clock, subjects=1) == 1
    admin, database = app.extensions["study_admin"], app.extensions["study_database"]
    with database.read() as db:  # an export that takes its time
        code = db.scalar(select(Participant.code))
        with pytest.raises(UserError, match="try again when no export or backup is running"):
            admin.delete_participant(code)
    with database.read() as db:
        assert db.scalar(select(Participant.deleted_at)) is None
    assert admin.delete_participant(code)
    with pytest.raises(UserError, match="deleted already"):
        admin.delete_participant(code)


@pytest.mark.parametrize("policy", ["keep_answers", "delete_answers"])
def test_a_deleted_participant_leaves_a_tombstone(clock, pack, url, policy, tmp_path):
    app = make_app(url, clock)
    open_study(app, pack, small_spec(deletion=policy, target=2))
    assert simulate(app, "study", RATES, 0, clock, subjects=4) == 4
    admin, database = app.extensions["study_admin"], app.extensions["study_database"]
    with database.read() as db:
        session = db.scalars(select(Session).order_by(Session.id)).first()
        code, subject = session.completion_code, db.get(Participant, session.participant_id).code
    rows = rows_of(app)
    assert admin.delete_participant(code) == (policy == "delete_answers")
    left = [row for row in rows if row["subject"] != subject]
    blank = dict.fromkeys(("viewport_w", "viewport_h", "dpr", "css_w", "css_h", "fullscreen"), "")
    kept = [row | blank if row["subject"] == subject else row for row in rows]
    assert rows_of(app) == (kept if policy == "keep_answers" else left)
    (tmp_path / "r.csv").write_text(text := export.responses_csv(database, "study"))
    (tmp_path / "r.parquet").write_bytes(export.to_parquet(text, "responses"))
    for frame in (tables.load(tmp_path / "r.csv"), tables.load(tmp_path / "r.parquet")):
        assert len(frame) == len(rows_of(app))
        assert set(frame.loc[frame["dpr"] == "", "subject"]) == ({subject} if policy == "keep_answers" else set())
    described = json.loads(export.codebook_json(database, "study"))["properties"]["responses"]
    columns = described["items"]["properties"]
    typed = [{name: as_its_column_says(cell, columns[name]) for name, cell in row.items()} for row in rows_of(app)]
    Draft202012Validator(described).validate(typed)
    with database.read() as db:
        session = db.scalars(select(Session).order_by(Session.id)).first()
        assert (session.token_sha256, session.viewport_w, session.dpr) == (None, None, None)
        assert session.completion_code != code
        assert db.get(Participant, session.participant_id).deleted_at == clock()
        assert len(db.scalars(select(Response.id)).all()) == len(rows_of(app))
        assert db.scalar(select(Trial.id).where(Trial.session_id == session.id)) is None or policy == "keep_answers"
    # The place is free again where its answers are gone, and only there.
    assert simulate(app, "study", RATES, 1, clock) == (1 if policy == "delete_answers" else 0)
    assert len(export.sessions_csv(database, "study").splitlines()) == (6 if policy == "delete_answers" else 5)
    database.engine.dispose()


def test_a_folder_is_no_file_to_export_to(app, tmp_path):
    for option in ("--out", "--sessions", "--events", "--codebook"):
        line = ["study", "export", "study", "--out", str(tmp_path / "r.csv"), option, str(tmp_path)]
        result = app.test_cli_runner().invoke(args=line)
        assert result.exit_code == 2 and "is a directory" in result.output
    assert not (tmp_path / "r.csv").exists()
