"""`flask study preregister`: what it says is what the settings say, and its power is that of analysis.power."""

import importlib
import re
import tomllib

import pytest
from click.testing import CliRunner

from analysis import power
from study_app import spec
from study_app.commands import study
from study_app.preregistration import preregistration


@pytest.mark.parametrize("name", spec.available())
def test_every_study_of_the_toolkit_has_one(name):
    settings = spec.load(name)
    text = preregistration(settings, ["sr3", "regression"])
    assert f"# Preregistration: {settings.title}\n" in text and not re.search(r"[{}]{2}|{%", text)
    assert all(f"“{criterion.question}”" in text for criterion in settings.asked)
    toml = text.partition("```toml\n")[2].partition("```")[0]
    assert tomllib.loads(toml)["per_subject"] == settings.per_subject
    planned = power.power(settings.target, settings.images, settings.per_subject).iloc[0]
    assert f"| one rate against 50 % | {100 * planned['detectable']:.1f} points |" in text


def test_it_follows_the_settings():
    changes = ['mode="within"', "exposures_ms=[1000, 4000]", "catch_pass=6", "replace_failed=false", "per_subject=48"]
    text = preregistration(spec.load("task2_faces", [*changes, "target=100"]), ["a", "b"])
    for said in (
        "2 groups of subjects: every subject sees all of\n\n- a beside the real picture\n- b beside the real picture\n",
        "one of the viewing times 1 s or 4 s",
        "fewer than 6 of 8 catch trials, whose right answer is obvious, are excluded (analysis.exclusions.Rules(",
        "100 subjects a group, 200 in all, each with 48 test trials of 100 images",
        "(24 for each model",
        "Viewing times are never pooled",
    ):
        assert said in text, said
    within = power.power(100, 100, 24, comparison="within").iloc[0]
    assert (
        f"| two models | {100 * within['detectable']:.1f} points | {100 * within['power_equivalence']:.0f} % |" in text
    )


def test_pairs_of_models():
    changes = ['compare="models"', 'pairs=[["a", "b"], ["a", "c"]]', 'tie="No difference"', 'mode="within"']
    text = preregistration(
        spec.load("demo_task2", [*changes, "per_subject=24", "images=48", "target=20"]), ["a", "b", "c"]
    )
    assert "- a beside b\n- a beside c\n" in text and "(Left / Right / No difference)" in text
    assert "not balanced" not in text
    check = "comprehension={attempts=2, questions=[{text='When?', options=['a', 'b'], right='a'}]}"
    changes += ["adaptive=true", check, "per_subject=24", "images=48", "target=20"]
    adaptive = preregistration(spec.load("demo_task2", changes), ["a", "b", "c"])
    assert "How often each pair is seen is not balanced.\n" in adaptive and "(about 12 for each pair" in adaptive
    assert "correctly after 2 attempts see no" in adaptive and "study reopen --reason" in adaptive
    named = re.findall(r"\(analysis\.(\w+)\.([\w, ]+)\)", adaptive)
    for module, names in named:  # what the analyst is to call is there
        assert all(hasattr(importlib.import_module(f"analysis.{module}"), name) for name in names.split(", ")), names
    assert len(named) > 1
    assert "Bradley–Terry scores with Davidson's ties" in text and "fool rate" not in text


def test_the_command(tmp_path):
    def run(*options):
        return CliRunner().invoke(study, ["preregister", "task1_faces", "--out", str(tmp_path / "plan.md"), *options])

    assert "--models: name the methods" in run().output
    done = run("--models", "sr3,regression")
    assert done.exit_code == 0, done.output
    assert "sr3 beside the real picture" in (tmp_path / "plan.md").read_text()
    again = run("--models", "sr3,regression")
    assert again.exit_code == 1 and "plan.md: already exists; choose another name" in again.output
