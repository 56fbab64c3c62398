"""What `pip install sr3eval[study]` brings: the study, its analysis, and no torch."""

import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from study_servers import Application

from sr3eval.config import to_toml
from sr3eval.console import EXTRAS
from study_app.bots import HttpBot
from study_app.browser import Browser
from tests.study_app.small_study import small_spec, write_pack

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = ("sr3eval", "baselines", "study_app", "analysis")
QUICK = small_spec(images=4, per_subject=2, practice=1, catch=0, catch_pass=0, exposures_ms=(260,), fixation_ms=0)
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "benchmark.py")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The project's wheel, built of a copy lest the build leave something here."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", out]
    subprocess.run([*pip, source], check=True, capture_output=True, text=True)
    return next(out.glob("*.whl"))


def required(requirements, extras=("",)):
    """The names of what some requirements bring, directly or not."""
    found = set()
    waiting = [(Requirement(text), extras) for text in requirements]
    while waiting:
        requirement, chosen = waiting.pop()
        wanted = not requirement.marker or any(requirement.marker.evaluate({"extra": extra}) for extra in chosen)
        if not wanted or (requirement.name, *requirement.extras) in found:
            continue
        found.add((requirement.name, *requirement.extras))
        texts = distribution(requirement.name).requires or []
        waiting += [(Requirement(text), ("", *requirement.extras)) for text in texts]
    return {name for name, *_ in found}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """What runs Python where there is the wheel, what its extra `study` requires, and nothing else.

    The required packages are linked from this environment, which takes a second and no network.
    """
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    site = next(home.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        texts = re.findall(r"^Requires-Dist: (.*)$", archive.read(metadata).decode(), re.MULTILINE)
    for name in required(texts, ("", "study")):
        package = distribution(name)
        for entry in {file.parts[0] for file in package.files if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / entry).exists():
                (site / entry).symlink_to(package.locate_file(entry))

    return Environment(home)


class Environment:
    """A Python of its own in a folder, which is where its programs run."""

    def __init__(self, home):
        self.home, self.python, self.url = home, str(home / "bin" / "python"), f"sqlite:///{home / 'study.db'}"

    def __call__(self, *arguments, secret="x"):
        environment = {"PATH": os.environ["PATH"], "STUDY_SECRET_KEY": secret, "STUDY_DATABASE_URL": self.url}
        command = [self.python, *arguments]
        return subprocess.run(command, cwd=self.home, capture_output=True, text=True, env=environment)


def test_the_wheel_holds_every_file_of_the_packages(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    files = {path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.*")}
    assert {name for name in files if "__pycache__" not in name and (ROOT / name).is_file()} <= held
    assert {f"{name}/py.typed" for name in PACKAGES} <= held
    assert "benchmark.py" in held and not any(name.startswith(("tests/", "profiling/")) for name in held)


def test_the_sdist_holds_every_file_of_the_repository(tmp_path):
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    code = f"import setuptools; setuptools.setup(script_args=['-q', 'egg_info', '--egg-base', {str(tmp_path)!r}])"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    sources = (tmp_path / "sr3eval.egg-info" / "SOURCES.txt").read_text(encoding="utf-8").splitlines()
    lacking = set(listed.splitlines()) - set(sources)
    assert {name for name in lacking if not name.startswith(".") and (ROOT / name).exists()} == {"MANIFEST.in"} - set(
        sources
    )


@pytest.mark.parametrize(("package", "command", "extra"), [("flask", "study", "study"), ("jinja2", "run", "eval")])
def test_an_absent_package_is_named_with_its_extra(package, command, extra, tmp_path):
    """As where the other packages of its extra are there."""
    (tmp_path / "run.toml").write_text('task = "photos_16_64"\n[data]\nimages = "none"\n[[method]]\nkind = "bicubic"\n')
    words = {"study": ["study", "list"], "run": ["benchmark", "run", "run.toml", "--out", "run"]}[command]
    code = f"import sys; sys.modules[{package!r}] = None; from sr3eval.cli import main; main({words!r})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (1, f"Error: {package} is not installed: pip install 'sr3eval[{extra}]'\n")


def test_the_study_runs_without_torch(installed):
    assert installed("-c", "import torch").stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'torch'"
    for study in (("flask", "--app", "study_app", "study"), ("sr3eval.cli", "study")):
        listed = installed("-m", *study, "--help")
        assert listed.returncode == 0 and "freeze" in listed.stdout, listed.stderr
        assert installed("-m", *study, "list", secret="").returncode == 0  # one is made and kept
    made = installed("-c", "import sr3eval, analysis, study_app; print(study_app.create_app().name)")
    assert made.stdout == "study_app\n", made.stderr


def test_the_benchmark_is_a_command_wherever_the_wheel_is(installed):
    listed = installed("-m", "sr3eval.cli", "--help").stdout
    assert re.search("benchmark +Further commands: see `sr3eval benchmark --help`", listed)
    asked = installed("-m", "sr3eval.cli", "benchmark", "run", "--help")
    assert asked.returncode == 0 and "CONFIG" in asked.stdout, asked.stderr
    lacking = installed("-m", "sr3eval.cli", "benchmark", "list", "tasks")
    assert lacking.returncode == 1 and lacking.stderr == "Error: torch is not installed: pip install 'sr3eval[eval]'\n"


def test_a_study_is_made_and_served_without_torch(installed):
    write_pack(installed.home / "pack", test=4)
    (installed.home / "quick.toml").write_text(to_toml(QUICK))
    for verb in ("create pack --study quick.toml", "freeze quick", "run quick"):
        done = installed("-m", "flask", "--app", "study_app", "study", *verb.split())
        assert done.returncode == 0, done.stderr
    server = Application(installed.home, installed.url, installed.python, PYTHONPATH="").start()
    try:
        bot = HttpBot(Browser(server.url), "quick", random.Random(0))
        bot.enter()
        assert bot.start().status_code == 201
        assert bot.take(lambda trial: "left")
    finally:
        server.stop()
    out = installed("-m", "flask", "--app", "study_app", "study", "export", "quick", "--out", "responses.csv")
    rows = (installed.home / "responses.csv").read_text().splitlines()
    assert out.returncode == 0 and len(rows) == 1 + len(bot.acknowledged) == 4


@pytest.mark.parametrize("command", [("benchmark", "run", "--out=x"), ("benchmark", "list"), ("sr3eval.cli", "train")])
def test_what_needs_torch_says_what_to_install(installed, command):
    module, verb, *options = command
    argument = "metrics" if verb == "list" else "config.toml"
    done = installed("-m", module, verb, argument, *options)
    assert done.returncode == 1
    assert re.fullmatch(r"Error: (torch|safetensors) is not installed: pip install 'sr3eval\[eval\]'\n", done.stderr)


def test_optional_imports_are_known_by_the_extra_that_installs_them():
    def top(path):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module.partition(".")[0]

    def names(requirements):
        imported_as = {"pillow": "PIL"}
        plain = (Requirement(text).name.lower().replace("-", "_") for text in requirements)
        return {imported_as.get(name, name) for name in plain}

    ours = [path for name in ("sr3eval", "baselines") for path in (ROOT / name).rglob("*.py") if path.stem != "build"]
    imports = {name for path in ours for name in top(path)} - sys.stdlib_module_names - set(PACKAGES)
    assert imports - names(PROJECT["dependencies"]) - {"pydantic_core"} == set(EXTRAS) - {"flask"}  # study_app's
    for package, extra in EXTRAS.items():
        assert package in names(PROJECT["optional-dependencies"][extra])
