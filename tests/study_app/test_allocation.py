"""Plans are balanced exactly, whatever the numbers."""

import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from study_app.allocation import plan
from study_app.spec import load
from tests.study_app.small_study import small_spec

SALT = "0123456789abcdef0123456789abcdef"


def counts(slots, *fields, kind="test"):
    """By the value of `fields` ("slot", "number", "model", "real_side"), how many trials of a kind."""
    rows = [{"slot": i, **vars(t)} for i, trials in enumerate(slots) for t in trials if t.kind == kind]
    return Counter(tuple(row[field] for field in fields) for row in rows)


def check(spec, models, slots):
    views = spec.target * spec.per_subject // spec.images
    shared = range(models)
    assert len(slots) == spec.target
    assert counts(slots, "number") == {(i,): views for i in range(spec.images)}
    assert set(counts(slots, "slot", "number").values()) == {1}
    # Each subject: half of the trials of each model on either side. Each image: so too, ±1 where the views are odd.
    half = spec.per_subject // models // 2
    assert set(counts(slots, "slot", "model", "real_side").values()) == {half}
    sides = counts(slots, "number", "model", "real_side")
    for image in range(spec.images):
        for model in shared:
            left, right = (sides[image, model, side] for side in ("left", "right"))
            assert left + right == views // models and abs(left - right) <= 1
    for trials in slots:
        kinds = [trial.kind for trial in trials]
        assert kinds[: spec.practice] == ["practice"] * spec.practice and "practice" not in kinds[spec.practice :]
        for kind, count in (("practice", spec.practice), ("catch", spec.catch)):
            assert sorted(t.number for t in trials if t.kind == kind) == list(range(count))
            assert abs(sum(1 if t.real_side == "left" else -1 for t in trials if t.kind == kind)) <= 1
        catches = [i for i, kind in enumerate(kinds) if kind == "catch"]
        stretch = spec.per_subject / max(spec.catch, 1)
        assert all(b - a <= 2 * stretch + 2 for a, b in itertools.pairwise(catches))


def test_the_papers_design():
    spec = load("task1_faces")
    slots = plan(spec, "sr3", 1, SALT)
    check(spec, 1, slots)
    sides = counts(slots, "number", "real_side")
    assert set(sides.values()) == {12, 13}
    assert {side: sum(n for (_, s), n in sides.items() if s == side) for side in ("left", "right")} == {
        "left": 1250,
        "right": 1250,
    }


def test_who_takes_both_tasks_sees_other_orders_and_sides():
    """Else what the practice of one task tells holds for the other, and an image's sides are confounded with it."""
    first, second = (plan(small_spec(task=task), "sr3", 1, SALT) for task in (1, 2))
    for kind in ("test", "practice", "catch"):
        sides = [counts(slots, "slot", "number", "real_side", kind=kind) for slots in (first, second)]
        assert sides[0] != sides[1]
    assert plan(small_spec(), "sr3", 1, SALT) == second


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_any_design(data):
    models = data.draw(st.integers(1, 4))
    per_subject = 2 * models * data.draw(st.integers(1, 5))
    images = data.draw(st.integers(per_subject, 3 * per_subject))
    target = images * models * data.draw(st.integers(1, 2))  # one of the numbers that balance
    spec = small_spec(
        images=images,
        per_subject=per_subject,
        target=target,
        mode="within",
        seed=data.draw(st.integers(0, 9)),
        catch=data.draw(st.integers(0, 9)),
        catch_pass=0,
        practice=data.draw(st.integers(0, 4)),
    )
    spec.check_models([str(i) for i in range(models)])
    check(spec, models, plan(spec, "all", models, SALT))


def test_a_plan_follows_from_salt_seed_and_condition():
    spec = load("demo_task2")
    assert plan(spec, "sr3", 1, SALT) == plan(spec, "sr3", 1, SALT)
    assert plan(spec, "sr3", 1, SALT) != plan(spec, "bicubic", 1, SALT)
    assert plan(spec, "sr3", 1, SALT) != plan(load("demo_task2", ["seed=1"]), "sr3", 1, SALT)
    assert plan(spec, "sr3", 1, SALT) != plan(spec, "sr3", 1, "")
