"""Does CUDA compute what the CPU does? The tests marked `gpu`, with the differences they measured."""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from gpu_stages.job import Found, Place

ROOT = Path(__file__).parents[2]
TESTS = ("tests/contracts/test_methods.py", "tests/metrics/test_gpu.py", "tests/diffusion/test_gpu.py")


def run(place: Place) -> Found:
    """Run `pytest -m gpu`; a row a test. On the CPU they are only collected."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
        command += ["--collect-only"] if place.small else [f"--junit-xml={report}"]
        done = subprocess.run([*command, *TESTS], cwd=ROOT, capture_output=True, text=True)
        lines = (done.stdout or done.stderr).strip().splitlines()
        rows = list(read(report)) if report.exists() else []
        return {"ended": lines[-1] if lines else "without a word", "exit_code": done.returncode, "rows": rows}


def read(report: Path) -> list[dict[str, object]]:
    """Tests, whether they passed, and what they recorded."""
    rows = []
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        problems = [problem for kind in ("failure", "error", "skipped") for problem in case.iter(kind)]
        recorded = {p.get("name"): p.get("value") for p in case.iter("property")}
        outcome = f"{problems[0].tag}: {(problems[0].get('message') or '')[:120]!r}" if problems else "passed"
        rows.append({"test": case.get("name"), "outcome": outcome.replace("|", "/"), **recorded})
    return rows
