"""Studies as TOML."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from sr3eval.config import from_dict, to_toml
from sr3eval.errors import UserError
from study_app import spec
from tests.study_app.small_study import small_spec

ROOT = Path(__file__).parents[2]
MODELS = {"compare": "models"}


def test_the_papers_questions_to_the_letter():
    assert spec.QUESTIONS == {
        1: "Which of the two images is a better high quality version of the low resolution image in the middle?",
        2: "Which image would you guess is from a camera?",
    }
    asked = {task: small_spec(task=task).asked for task in (1, 2)}
    assert asked == {task: (spec.Criterion("", text),) for task, text in spec.QUESTIONS.items()}
    assert small_spec(question="Which do you like?").asked == (spec.Criterion("", "Which do you like?"),)


def test_the_papers_studies():
    studies = {name: spec.load(name) for name in spec.available()}
    assert {name: (s.task, s.exposures_ms) for name, s in studies.items()} == {
        "task1_faces": (1, (3000,)),
        "task2_faces": (2, (3000,)),
        "task2_natural": (2, (6000,)),
        "durations_faces": (2, (3000, 6000, 12000)),
        "demo_task1": (1, (3000,)),
        "demo_task2": (2, (3000,)),
    }
    for name, study in studies.items():
        counts = (study.images, study.per_subject, study.practice, study.catch, study.catch_pass)
        assert counts == ((40, 20, 4, 8, 7) if name.startswith("demo") else (100, 50, 4, 8, 7))
        assert study.mode == "between"
        study.check_models(["a model"])
        side = {"task2_natural": 256}.get(name, 128)
        study.check_size(side, side)
        assert from_dict(spec.Spec, tomllib.loads(to_toml(study))) == study


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imagse": 3}, 'unknown key "imagse": did you mean "images"'),
        ({"task": 3}, '"task" is 3'),
        ({"task": 1, "catch": 1, "catch_pass": 1}, "take at least 2, or 0"),
        ({"images": 3}, "per_subject = 4: there are only images = 3"),
        ({"target": 5}, "do not see 8 images equally often"),
        ({"catch_pass": 3}, "catch_pass = 3: there are only catch = 2"),
        ({"language": "fr"}, 'language = "fr": valid: de, en'),
        ({"zoom": 0}, "zoom = 0: must be from 1 to 16"),
        ({"exposures_ms": []}, "name each viewing time once"),
        ({"exposures_ms": [3000, 3000]}, "name each viewing time once"),
        ({"exposures_ms": [1]}, "must be from 50"),
        ({"min_viewport": [900]}, r"must be \[width, height\]"),
        ({"questions": [{"id": "a", "text": "A?"}, {"id": "a", "text": "B?"}]}, "same id"),
        ({"questions": [{"id": "a", "text": "A?", "kind": "choice"}]}, "a choice and a scale need options"),
        ({"questions": [{"id": "a", "text": "A?", "kind": "scale", "options": ["x"]}]}, "a scale has two options"),
        ({"question": " "}, "question: must have 1 to 500"),
        ({"answers": ["Left"]}, r"must be \[left, right\]"),
        ({"answers": ["Same", "Same"]}, "two buttons have the same text"),
        ({"answers": ["", "Right"]}, "a button must have 1 to 60 characters"),
        ({"tie": "Same"}, 'tie: only for compare = "models"'),
        ({"adaptive": True}, 'adaptive: only for compare = "models"'),
        ({**MODELS, "against": "sr3"}, 'compare = "models" has `pairs` for that'),
        ({**MODELS, "pairs": [["a", "b"], ["b", "a"]]}, "name each pair of two different models once"),
        ({**MODELS, "pairs": [["a", "a"]]}, "name each pair of two different models once"),
        ({**MODELS, "tie": "Left"}, "two buttons have the same text"),
        ({**MODELS, "adaptive": True}, 'set mode = "within"'),
        ({**MODELS, "question": "Q?", "criteria": [{"id": "a", "question": "A?"}]}, "leave this one out"),
        ({**MODELS, "criteria": [{"id": "A b", "question": "A?"}]}, "criteria: ids"),
        ({**MODELS, "criteria": [{"id": "a", "question": ""}]}, "question: must have 1 to 500"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes, message):
    settings = {**dataclasses.asdict(small_spec()), **changes}
    with pytest.raises(UserError, match=message):
        from_dict(spec.Spec, settings)


@pytest.mark.parametrize(
    ("settings", "models", "message"),
    [
        ({}, [], "no models"),
        ({"per_subject": 1, "target": 8}, ["a"], "per_subject = 1"),
        ({"mode": "within"}, ["a", "b", "c"], "2 sides and 3 models; take 6"),
        ({"mode": "within"}, ["a", "b"], "seen 3 times, which 2 models cannot share"),
        ({**MODELS}, ["a"], "no models to compare: it needs two"),
        ({**MODELS, "mode": "within"}, ["a", "b", "c"], "2 sides and 3 pairs of models; take 6"),
        ({**MODELS, "pairs": [["a", "d"]]}, ["a", "b"], 'pairs: no model "d" in the study'),
    ],
)
def test_models_that_cannot_be_balanced(settings, models, message):
    with pytest.raises(UserError, match=message):
        small_spec(**settings).check_models(models)


def test_pictures_that_do_not_fit_the_smallest_screen():
    with pytest.raises(UserError, match="2 pictures of 128x128 at zoom 1 need 336x328; raise min_viewport"):
        small_spec().check_size(128, 128)


def test_the_documentation_s_studies():
    blocks = re.findall(r"```toml\n(title.*?)```", (ROOT / "docs/study.md").read_text(encoding="utf-8"), re.DOTALL)
    own, pairs = (from_dict(spec.Spec, tomllib.loads(block)) for block in blocks)
    assert own.asked[0].question == "Which face looks more natural?"
    pairs.check_models(["sr3", "esrgan", "bicubic"])
    assert [criterion.id for criterion in pairs.asked] == ["sharper", "faithful"]


def test_unknown_study_names_the_nearest():
    with pytest.raises(UserError, match='no study "task1_face": did you mean "task1_faces"'):
        spec.load("task1_face")
