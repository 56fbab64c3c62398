"""Who may import whom (the house rules), and that our packages are the ones that get imported."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import analysis
import baselines

ROOT = Path(__file__).parent.parent
INTERNAL = {"sr3eval", "baselines", "analysis", "study_app", "benchmark"}
BASICS = {"sr3eval", "sr3eval.errors"}
FILES = BASICS | {"sr3eval.config", "sr3eval.files"}
IMAGES = FILES | {
    "sr3eval.arrays",
    "sr3eval.images",
    "sr3eval.matlab",
    "sr3eval.degradation",
    "sr3eval.tasks",
    "sr3eval.data",
    "sr3eval.method",
    "sr3eval.device",
    "sr3eval.discovery",
    "sr3eval.sources",
    "sr3eval.user_code",
}
# By folder or file, what of ours it may import. The longest matching path counts.
ALLOWED = {
    "sr3eval/errors.py": set(),
    "sr3eval/config.py": BASICS,
    "sr3eval/files.py": BASICS,
    "sr3eval/console.py": BASICS,
    "sr3eval/arrays.py": BASICS | {"sr3eval.images"},
    "sr3eval": IMAGES,
    "sr3eval/weights": BASICS | {"sr3eval.weights", "sr3eval.discovery", "sr3eval.methods", "sr3eval.metrics"},
    "sr3eval/features": IMAGES | {"sr3eval.features", "sr3eval.weights"},
    "sr3eval/metrics": IMAGES | {"sr3eval.metrics", "sr3eval.features", "sr3eval.weights"},
    "sr3eval/diffusion": IMAGES | {"sr3eval.diffusion", "sr3eval.metrics", "sr3eval.tiles"},
    "sr3eval/methods": IMAGES | {"sr3eval.methods", "sr3eval.diffusion", "sr3eval.tiles"},
    "sr3eval/protocols.py": BASICS,
    "sr3eval/benchmark": IMAGES
    | {
        "sr3eval.methods",
        "sr3eval.pairs",
        "sr3eval.protocols",
        "sr3eval.benchmark",
        "sr3eval.features",
        "sr3eval.metrics",
        "sr3eval.diffusion",
    },
    "sr3eval/cli.py": IMAGES | {"sr3eval.benchmark", "sr3eval.diffusion", "sr3eval.metrics", "sr3eval.console"},
    "baselines": {
        "baselines",
        "sr3eval.config",
        "sr3eval.discovery",
        "sr3eval.method",
        "sr3eval.images",
        "sr3eval.errors",
        "sr3eval.diffusion",
        "sr3eval.device",
        "sr3eval.tiles",
        "sr3eval.weights",
    },
    "analysis": {"analysis"},
    "study_app": {"study_app", "analysis", "sr3eval.config", "sr3eval.console", "sr3eval.errors", "sr3eval.files"},
}
FORBIDDEN = {"analysis": {"torch", "flask"}, "study_app": {"torch"}}
PYTHON_FILES = [p for top in ("sr3eval", "baselines", "analysis", "study_app") for p in (ROOT / top).rglob("*.py")]


def imported(path: Path) -> set[str]:
    """Full dotted names of all imports of a file, `from a import b` as a.b and a."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert getattr(node, "level", 0) == 0, "relative import"
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_house_rules(path):
    relative = path.relative_to(ROOT)
    rule = max((key for key in ALLOWED if relative.is_relative_to(key)), key=len)
    for name in imported(path):
        top = name.split(".")[0]
        assert top not in FORBIDDEN.get(relative.parts[0], set()), name
        if top in INTERNAL:
            shortest = 2 if top == "sr3eval" else 1  # "sr3eval" alone is its __init__, "baselines" all of baselines
            prefixes = {".".join(name.split(".")[:n]) for n in range(shortest, len(name.split(".")) + 1)} or {name}
            assert prefixes & ALLOWED[rule] or name in ALLOWED[rule], f"{relative} may not import {name}"


def test_the_study_needs_no_torch():
    """Nor do its commands, nor reading a pack: the server is a small machine's work."""
    modules = ("study_app", "study_app.commands", "study_app.pack", "study_app.bots", "study_app.export")
    code = f"import sys, {', '.join(modules)}; study_app.create_app(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env={**os.environ, "STUDY_SECRET_KEY": "x"})


def test_our_packages_are_the_ones_imported():
    for package in (analysis, baselines):
        assert Path(package.__file__).is_relative_to(ROOT)


@pytest.mark.parametrize("command", [["benchmark.py"], ["benchmark.py", "run"], ["-m", "sr3eval.cli", "train"]])
def test_help_is_quick(command):
    line = [sys.executable, "-X", "importtime", *command, "--help"]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Usage:" in result.stdout
    assert "| click" in result.stderr  # the list of imports is there
    assert not re.search(r"\| *(torch|pandas|numpy|pydantic)$", result.stderr, re.MULTILINE)
