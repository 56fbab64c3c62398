"""Exports follow the published formats: the Hub's own parser reads one, Every Eval Ever's JSON Schema takes the other.

every_eval_ever.schema.json is eval.schema.json 0.3.0 of https://github.com/evaleval/every_eval_ever at commit 9bce413
(MIT licence, see every_eval_ever.LICENSE).
"""

import json
import uuid
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from huggingface_hub import parse_eval_result_entries

from sr3eval.benchmark import card
from sr3eval.commands import main

SCHEMA = json.loads(Path(__file__).with_name("every_eval_ever.schema.json").read_bytes())
SCORES = {
    "psnr": {"our net": [25.0, 26.5, 27.0], "bicubic": [24.0, 25.0, 26.0]},
    "niqe": {"our net": [4.0, 5.0, 4.5], "bicubic": [7.0, 7.5, 8.0]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_run):
    """A run in which bicubic has no finite PSNR."""
    folder = write_run(tmp_path_factory.mktemp("run"), dict.fromkeys(["a", "b", "c"], (16, 16)), SCORES)
    found = json.loads((folder / "results.json").read_bytes())
    found["results"]["photos_16_64"][""]["bicubic"]["psnr"]["value"] = None
    (folder / "results.json").write_text(json.dumps(found))
    return folder


def export(*arguments):
    result = CliRunner().invoke(main, ["export", *map(str, arguments)])
    return result.exit_code, result.output


MODELS = ("--model", "our net=lab/net", "--model", "bicubic=nobody/bicubic")


def test_the_hub_reads_its_files(folder, tmp_path):
    code, output = export(folder, "--to", "huggingface", *MODELS, "--benchmark", "lab/photos", "--out", tmp_path)
    paths = [tmp_path / "lab/net/.eval_results/photos.yaml", tmp_path / "nobody/bicubic/.eval_results/photos.yaml"]
    assert (code, output.splitlines()) == (0, list(map(str, paths)))
    entries = parse_eval_result_entries(yaml.safe_load(paths[0].read_text(encoding="utf-8")))
    numbers = card.read(folder / "results.json").results["photos_16_64"][""]["our net"]
    found = {(e.dataset_id, e.task_id): e.value for e in entries}
    assert found == {("lab/photos", metric): number.value for metric, number in numbers.items()}
    assert found["lab/photos", "psnr"] == pytest.approx(78.5 / 3)
    assert entries[0].notes.startswith("sr3eval: RGB, mean; n = 3; 95 % interval [25.0, ")
    (only,) = yaml.safe_load(paths[1].read_text(encoding="utf-8"))  # PSNR is left out
    assert only["dataset"]["task_id"] == "niqe"


def test_every_eval_evers_schema_takes_its_records(folder, tmp_path):
    options = ("--benchmark", "photos", "--organization", "A lab", "--relationship", "first_party")
    code, output = export(folder, "--to", "every-eval-ever", *MODELS, *options, "--out", tmp_path)
    assert code == 0, output
    path = Path(output.splitlines()[0])
    assert path.parent == tmp_path / "data/photos/lab/net" and uuid.UUID(path.stem).version == 4
    record = json.loads(path.read_bytes(), parse_constant=lambda name: pytest.fail(name))
    jsonschema.Draft7Validator(SCHEMA).validate(record)
    psnr, niqe = record["evaluation_results"]
    assert psnr["score_details"]["score"] == pytest.approx(78.5 / 3) and psnr["metric_config"]["max_score"] == 54.15
    assert niqe["metric_config"]["lower_is_better"] and not psnr["metric_config"]["lower_is_better"]
    interval = psnr["score_details"]["uncertainty"]["confidence_interval"]
    assert 25 <= interval["lower"] < psnr["score_details"]["score"] < interval["upper"] <= 27
    again = export(folder, "--to", "every-eval-ever", *MODELS, *options, "--out", tmp_path)
    assert again == (0, output)


@pytest.mark.parametrize(
    ("model", "benchmark", "expected"),
    [
        ("ou net=lab/net", "lab/photos", 'unknown method "ou net": did you mean "our net"?'),
        ("our net=net", "lab/photos", "--model net: write it as OWNER/NAME"),
        ("our net=../net", "lab/photos", "--model ../net: write it as OWNER/NAME"),
        ("our net=lab/net", "photos", "--benchmark photos: write it as OWNER/NAME"),
    ],
)
def test_what_is_wrong_is_a_line(folder, tmp_path, model, benchmark, expected):
    options = ("--model", model, "--benchmark", benchmark, "--out", tmp_path / "out")
    assert export(folder, "--to", "huggingface", *options) == (1, f"Error: {expected}\n")
    assert not (tmp_path / "out").exists()
