"""profiling/dashboard.py in small: its study can be filled, and every page is there."""

import re

import pytest
from click.testing import CliRunner
from dashboard import main


@pytest.mark.parametrize("design", [[], ["--pairs"]])
def test_every_page_of_a_small_study_is_timed(design):
    result = CliRunner().invoke(main, ["--responses", "280", "--times", "1", *design])
    assert result.exit_code == 0, result.output
    assert len(re.findall(r"^/admin/load\S* +median +\d+ ms, slowest +\d+ ms$", result.output, re.MULTILINE)) == 5
    assert "288 responses, load average" in result.output
