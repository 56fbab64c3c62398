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

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_does_what_it_says(page, tmp_path):
    commands, expected = script(page)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    (folder := tmp_path / "empty").mkdir()
    done = subprocess.run(["bash"], input=commands, cwd=folder, env=own, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    printed = done.stdout.split(f"{NEXT}\n")[1:]
    assert len(printed) == len(expected) > 1
    for shown, actual in zip(expected, printed, strict=True):
        alike = doctest.OutputChecker().check_output(shown, actual, COMPARISON)
        assert not shown or alike, f"the page shows\n{shown}\nthe command prints\n{actual}"
