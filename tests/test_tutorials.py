"""Tutorials do what they say: each page's commands run, word for word and in order, in an empty folder.

A ```console block holds commands after `$ ` and, below some, what they print, with `...` for what differs between
machines. A ```toml or ```python block whose first line is `# NAME` is saved under that name. All else is for reading.
"""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
OF_REPOSITORY = {"reproduce_the_paper": ("configs", "benchmark.py")}  # in whose copy that page's commands are run
NEXT = "--- output of the next command ---"
COMPARISON = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def script(page):
    """A page as a bash script, and what each of its commands should print; "" where the page does not show it."""
    lines, expected = ["set -e", "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT"], []
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), flags=re.M | re.S):
        if language == "console":
            for command, output in re.findall(r"^\$ ((?:.*\\\n)*.*\n)((?:(?!\$ ).*\n)*)", block, flags=re.M):
                lines += [f"echo '{NEXT}'", command]
                expected.append(output)
        elif name := re.match(r"# ([\w.]+\.(?:toml|py))\n", block):
            lines.append(f"cat > {name[1]} << 'END OF FILE'\n{block}END OF FILE")
    return "\n".join(lines), expected


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """With the commands of this environment, and of sr3eval those of this checkout."""
    folder = tmp_path_factory.mktemp("bin")
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    with warm.command(folder, own):
        yield own


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_does_what_it_says(page, tmp_path, environment):
    for name in OF_REPOSITORY.get(page.stem, ()):
        (tmp_path / name).symlink_to(ROOT / name)
    commands, expected = script(page)
    done = subprocess.run(["bash"], input=commands, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    printed = done.stdout.split(f"{NEXT}\n")[1:]
    assert len(printed) == len(expected) > 1
    for shown, actual in zip(expected, printed, strict=True):
        alike = doctest.OutputChecker().check_output(shown, actual, COMPARISON)
        assert not shown or alike, f"the page shows\n{shown}\nthe command prints\n{actual}"
