"""Who may import whom (the house rules), and that our packages are the ones that get imported."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import analysis
import baselines

ROOT = Path(__file__).parent.parent
INTERNAL = {"sr3eval", "baselines", "analysis", "study_app", "benchmark"}


def rooms(*names: str) -> set[str]:
    return {f"sr3eval.{name}" for name in names}


BASICS = {"sr3eval", "sr3eval.errors"}
FILES = BASICS | rooms("catalog", "config", "files", "folders", "quantities", "shards")
IMAGES = FILES | rooms("arrays", "data", "degradation", "device", "discovery", "distributed", "images", "matlab")
IMAGES |= rooms("method", "pairs", "sources", "tasks", "tiles", "user_code")
# By folder or file, what of ours it may import. The longest matching path counts.
ALLOWED = {
    "sr3eval/__init__.py": BASICS | rooms("benchmark", "method", "methods", "metrics", "tasks"),
    "sr3eval/errors.py": set(),
    "sr3eval/config.py": BASICS,
    "sr3eval/console.py": BASICS | rooms("distributed"),
    "sr3eval/device.py": BASICS,
    "sr3eval/discovery.py": BASICS,
    "sr3eval/distributed.py": BASICS,
    "sr3eval/catalog.py": BASICS | rooms("files", "shards"),
    "sr3eval/folders.py": BASICS | rooms("catalog", "files", "shards"),
    "sr3eval/files.py": BASICS | rooms("shards"),
    "sr3eval/matlab.py": BASICS,
    "sr3eval/packs.py": BASICS | rooms("files", "folders"),
    "sr3eval/protocols.py": BASICS,
    "sr3eval/quantities.py": set(),
    "sr3eval/shards.py": BASICS,
    "sr3eval/significance.py": set(),
    "sr3eval/images.py": FILES,
    "sr3eval/arrays.py": FILES | rooms("images"),
    "sr3eval/degradation.py": FILES | rooms("images", "matlab"),
    "sr3eval/tasks.py": FILES | rooms("degradation", "images", "matlab"),
    "sr3eval/data.py": FILES | rooms("images", "tasks"),
    "sr3eval/pairs.py": FILES | rooms("data", "images", "tasks"),
    "sr3eval/method.py": FILES | rooms("device", "images"),
    "sr3eval/tiles.py": FILES | rooms("method"),
    "sr3eval/sources.py": FILES,
    "sr3eval/user_code.py": FILES | rooms("sources"),
    "sr3eval/assets": FILES | rooms("data", "tasks"),
    "sr3eval/weights": BASICS | rooms("weights", "diffusion", "discovery", "methods", "metrics"),
    "sr3eval/features": IMAGES | rooms("features", "weights"),
    "sr3eval/metrics": IMAGES | rooms("metrics", "features", "weights"),
    "sr3eval/diffusion": IMAGES | rooms("diffusion", "metrics", "significance", "weights"),
    "sr3eval/prepare": IMAGES | rooms("prepare"),
    "sr3eval/methods": IMAGES | rooms("methods", "diffusion"),
    "sr3eval/benchmark": IMAGES
    | rooms("benchmark", "methods", "metrics", "features", "diffusion", "packs", "protocols", "significance"),
    "sr3eval/paper.py": FILES | rooms("doctor"),
    "sr3eval/doctor": IMAGES | rooms("benchmark", "console", "diffusion", "doctor", "metrics", "weights"),
    "sr3eval/cli.py": FILES
    | rooms("benchmark", "diffusion", "distributed", "doctor", "metrics", "console", "prepare", "tasks"),
    "sr3eval/result_commands.py": BASICS | rooms("benchmark", "console"),
    "sr3eval/commands.py": FILES
    | rooms(
        "result_commands",
        "benchmark",
        "console",
        "discovery",
        "distributed",
        "methods",
        "metrics",
        "protocols",
        "tasks",
        "weights",
    ),
    "baselines": {"baselines"}
    | rooms("config", "device", "diffusion", "discovery", "errors", "images", "method", "tiles", "weights"),
    "analysis": {"analysis"},
    "study_app": {"study_app", "analysis"} | rooms("config", "console", "errors", "files", "folders", "packs"),
}
FORBIDDEN = {"analysis": {"torch", "flask"}, "study_app": {"torch"}}
PYTHON_FILES = [p for top in ("sr3eval", "baselines", "analysis", "study_app") for p in (ROOT / top).rglob("*.py")]


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """Full dotted names of all that is imported, `from a import b` as a.b."""
    names: set[str] = set()
    for node in nodes:
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
    for name in imported(ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        top = name.split(".")[0]
        assert top not in FORBIDDEN.get(relative.parts[0], set()), name
        if top in INTERNAL:
            shortest = 2 if top == "sr3eval" else 1  # "sr3eval" alone is its __init__, "baselines" all of baselines
            prefixes = {".".join(name.split(".")[:n]) for n in range(shortest, len(name.split(".")) + 1)} or {name}
            assert prefixes & ALLOWED[rule] or name in ALLOWED[rule], f"{relative} may not import {name}"


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The statements below a node that run when its module is imported."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from at_import(child)


def test_no_module_imports_itself_in_a_circle():
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in PYTHON_FILES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}

    def module_of(name: str) -> str | None:
        """The module that a dotted name is, or is in."""
        return name if name in modules or not name else module_of(name.rpartition(".")[0])

    graph = {
        module: {module_of(name) for name in imported(at_import(ast.parse(path.read_text(encoding="utf-8"))))} - {""}
        for module, path in modules.items()
    }
    assert graph["sr3eval.tasks"] == {"sr3eval.degradation", "sr3eval.errors", "sr3eval.images", "sr3eval.matlab"}
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_the_study_needs_no_torch():
    """Nor do its commands, nor reading a pack: the server is a small machine's work."""
    modules = ["study_app", *(f"study_app.{name}" for name in ("bots", "commands", "export", "folders", "pack"))]
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
