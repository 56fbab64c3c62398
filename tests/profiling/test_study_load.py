"""profiling/study_load.py in small: it reports what happened."""

import re

import pytest
from click.testing import CliRunner
from study_load import largest, main


def test_a_few_bots_are_measured():
    result = CliRunner().invoke(main, ["--bots", "4", "--seconds", "2", "--pace", "0.5", "--side", "32"])
    assert result.exit_code == 0, result.output
    trials, each = re.search(r"(\d+) trials of (\d+\.\d) requests each", result.output).groups()
    trials = int(trials)
    assert trials >= 4 and f"{trials} answers acknowledged: all stored, none twice" in result.output
    for kind, count in {"start": 4, "answer": trials, "showing": trials}.items():
        assert re.search(rf"^  {kind} +{count} +p50 +\d+\.\d  p99", result.output, re.MULTILINE)
    assert float(each) >= 3  # pictures, showing, answer
    for cost in ("a trial, with pictures", "a request", "4 starts, each with its first page"):
        assert float(re.search(rf"CPU (\d+\.\d+) ms .*{cost}", result.output)[1]) > 0


@pytest.mark.parametrize(
    ("truth", "found", "most_runs"), [(0, 0, 8), (70, 68, 6), (100, 100, 5), (777, 700, 8), (9999, 1600, 5)]
)
def test_the_search_doubles_and_then_halves(truth, found, most_runs):
    asked = []
    passes = lambda count: asked.append(count) or count <= truth  # noqa: E731
    assert largest(passes, 100, 1600) == found
    assert len(asked) == len(set(asked)) <= most_runs and max(asked) <= 1600
    assert 0.87 * min(truth, 1600) <= found <= truth
