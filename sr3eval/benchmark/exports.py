"""Results in other people's formats: `.eval_results` of the Hugging Face Hub, and Every Eval Ever's records."""

import hashlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from sr3eval.benchmark import card
from sr3eval.benchmark.card import Card, Number
from sr3eval.errors import UserError, nearest
from sr3eval.files import atomic_write

Relationship = Literal["first_party", "third_party", "collaborative", "other"]
EVERY_EVAL_EVER = "0.3.0"  # the version of its schema that `every_eval_ever` follows
UNBOUNDED = "Infinity"


def read(run: Path) -> Card:
    """The card of a finished run, or of a table of one."""
    found = card.read(run / "results.json")
    if len(found.runs) != 1:
        raise UserError(f"{run}: holds a table of {len(found.runs)} runs; export each of them")
    return found


def hugging_face(found: Card, models: Mapping[str, str], benchmark: str, out: Path) -> list[Path]:
    """Write OUT/OWNER/MODEL/.eval_results/BENCHMARK.yaml for each model, and return these files.

    Each metric is a task of the benchmark, by its id, or SET_METRIC where there are several sets. Format:
    https://github.com/huggingface/hub-docs/blob/main/eval_results.yaml

    Args:
        found: of `read`.
        models: by the name of a method, what the model is called on the Hub, OWNER/MODEL.
        benchmark: OWNER/DATASET, the dataset on the Hub whose leaderboard it is.
        out: the folder to write into.

    Raises:
        UserError: an unknown method, or names that are not OWNER/NAME.
    """
    owner, name = _parts(benchmark, "--benchmark")
    written = []
    for method, model in models.items():
        _parts(model, "--model")
        entries = [_entry(f"{owner}/{name}", *of) for of in _numbers(found, method)]
        written.append(out / model / ".eval_results" / f"{name}.yaml")
        atomic_write(written[-1], "".join(entries).encode())
    return written


def _entry(benchmark: str, dataset: str, metric: str, number: Number) -> str:
    """An item of the YAML list; JSON's strings are YAML's."""
    task = "_".join(filter(None, [dataset, metric]))
    interval = "" if number.ci_low is None else f"; 95 % interval [{number.ci_low}, {number.ci_high}]"
    notes = f"sr3eval: {number.settings}; n = {number.n}{interval}"
    lines = ["- dataset:", f"    id: {_text(benchmark)}", f"    task_id: {_text(task)}"]
    return "\n".join([*lines, f"  value: {number.value!r}", f"  notes: {_text(notes)}", ""])


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def every_eval_ever(
    found: Card,
    models: Mapping[str, str],
    benchmark: str,
    out: Path,
    organization: str,
    relationship: Relationship = "third_party",
) -> list[Path]:
    """Write OUT/data/BENCHMARK/OWNER/MODEL/UUID.json for each model, and return these files.

    The same results have the same UUID. Format: https://github.com/evaleval/every_eval_ever, eval.schema.json.

    Args:
        found: of `read`.
        models: by the name of a method, OWNER/MODEL, on the Hub where it is there.
        benchmark: the name of the collection.
        out: the folder to write into.
        organization: who evaluated.
        relationship: of the evaluator to the models.

    Raises:
        UserError: an unknown method, a name that is no name of a folder.
    """
    if not benchmark or "/" in benchmark or benchmark.startswith("."):
        raise UserError(f"--benchmark {benchmark}: Every Eval Ever wants a name without /")
    written = []
    for method, model in models.items():
        owner, name = _parts(model, "--model")
        source = {"source_name": "sr3eval", "source_type": "evaluation_run"}
        source |= {"source_organization_name": organization, "evaluator_relationship": relationship}
        record = {
            "schema_version": EVERY_EVAL_EVER,
            "source_metadata": source,
            "eval_library": _library(found),
            "model_info": _model(found, method, owner, model),
            "evaluation_results": [_result(found, *of) for of in _numbers(found, method)],
        }
        digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).digest()
        now = f"{time.time():.0f}"
        record |= {"retrieved_timestamp": now, "evaluation_id": f"{benchmark}/{model}/{now}"}
        named = uuid.UUID(bytes=digest[:16], version=4)
        written.append(out / "data" / benchmark / owner / name / f"{named}.json")
        atomic_write(written[-1], f"{json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)}\n".encode())
    return written


def _library(found: Card) -> dict[str, Any]:
    run = found.runs[0]
    known = {name: str(value) for name, value in (run.software | run.hardware).items() if name != "sr3eval"}
    return {"name": "sr3eval", "version": run.software.get("sr3eval", "unknown"), "additional_details": known}


def _model(found: Card, method: str, owner: str, model: str) -> dict[str, Any]:
    of = found.runs[0].methods.get(method)
    details = {"deployment_type": "self_deployed", "model_availability": "unknown"}
    if of is not None:
        details |= {"settings": of.settings} | {f"sha256 of {name}": sha256 for name, sha256 in of.weights.items()}
    return {"name": method, "id": model, "developer": owner, "additional_details": details}


def _result(found: Card, dataset: str, metric: str, number: Number) -> dict[str, Any]:
    run = found.runs[0]
    task = next(iter(found.results))
    name = f"{dataset} ({task})" if dataset else task
    data = {"pixels_sha256": run.data[dataset].pixels, "inputs": run.inputs, "task": task}
    config = {
        "metric_id": metric,
        "metric_name": number.label,
        "metric_unit": number.unit or "score",
        "evaluation_description": number.settings,
        "lower_is_better": not number.higher_is_better,
        "score_type": "continuous",
        "min_score": f"-{UNBOUNDED}",
        "max_score": UNBOUNDED if number.ceiling is None else number.ceiling,
        "additional_details": {"settings": number.settings, "version": number.version},
    }
    details: dict[str, Any] = {"score": number.value, "uncertainty": {"num_samples": number.n}}
    if number.ci_low is not None and number.ci_high is not None:
        interval = {"lower": number.ci_low, "upper": number.ci_high, "confidence_level": 0.95}
        details["uncertainty"]["confidence_interval"] = interval | {"method": number.interval or ""}
    return {
        "evaluation_result_id": f"{name}/{metric}",
        "evaluation_name": name,
        "source_data": {"dataset_name": dataset or task, "source_type": "other", "additional_details": data},
        "metric_config": config,
        "score_details": details,
    }


def _numbers(found: Card, method: str) -> Iterator[tuple[str, str, Number]]:
    """(data set, metric, number) of a method, where there is one. Raises UserError for an unknown method."""
    sets = next(iter(found.results.values()))
    known = {name for by_method in sets.values() for name in by_method}
    if method not in known:
        raise UserError(f'unknown method "{method}": {nearest(method, known)}')
    for dataset, by_method in sets.items():
        for metric, number in by_method.get(method, {}).items():
            if number.value is not None:
                yield dataset, metric, number


def _parts(name: str, option: str) -> tuple[str, str]:
    owner, slash, rest = name.partition("/")
    if not (owner and slash and rest) or "/" in rest or name.startswith(".") or rest.startswith("."):
        raise UserError(f"{option} {name}: write it as OWNER/NAME")
    return owner, rest
