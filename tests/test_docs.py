"""README and docs: every link leads somewhere, every config in them is read, every command is one that there is."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

import benchmark
from sr3eval import cli
from study_app.commands import study
from study_app.models import Base

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = {"sr3eval": cli.main, "sr3eval.cli": cli.main, "study": study}
COMMANDS |= dict.fromkeys(("benchmark.py", "benchmark"), benchmark.main)
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def without_code(text):
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))


def anchors(page):
    """Of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def blocks(page, *languages):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.M | re.S)
    return [text for language, text in found if language in languages]


@pages
def test_configs_are_toml(page):
    for block in blocks(page, "toml"):
        tomllib.loads(block)


def commands(page):
    """(program, what it is given) of every line in a block that calls one of ours."""
    for block in blocks(page, "", "sh", "bash", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            for program in [word for word in words if word in COMMANDS][-1:]:
                if words[0] not in ("make", "pip"):
                    yield program, words[words.index(program) + 1 :]


@pages
def test_commands_exist(page):
    """Their names and the names of their options."""
    for program, given in commands(page):
        command = COMMANDS[program]
        while isinstance(command, click.Group) and given and not given[0].startswith("-"):
            assert given[0] in command.commands, given
            command, given = command.commands[given[0]], given[1:]
        options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
        assert {word.partition("=")[0] for word in given if word.startswith("--")} <= options, given


def test_commands_are_found():
    assert sum(len(list(commands(page))) for page in PAGES) > 40


def test_the_data_protection_sheet_names_every_table_about_people():
    without = {"study", "condition", "stimulus", "plan_slot", "plan_trial"}  # settings, pictures and places
    sheet = (ROOT / "docs" / "data_protection.md").read_text()
    assert {name for name in Base.metadata.tables if f"`{name}`" not in sheet} <= without


def test_the_site_is_built_without_a_warning(tmp_path):
    """Links between its pages, docstrings, the tables of columns and the command lines are checked by that."""
    site = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", ROOT / "docs", tmp_path / "site"]
    done = subprocess.run([*site, "-d", tmp_path / "trees"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    commands, files = ((tmp_path / "site" / f"reference/{name}.html").read_text() for name in ("commands", "files"))
    assert "search-schedule" in commands and "exposure_actual_ms" in files
