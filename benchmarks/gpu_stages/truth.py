"""Does CUDA compute what the CPU does? The tests marked `gpu`, with the differences they measured."""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from gpu_stages.job import Found, Place

ROOT = Path(__file__).parents[2]


def run(place: Place, seconds: float) -> Found:
    """Run `pytest -m gpu` for at most `seconds`; a row a test. On the CPU they are only collected."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", f"--junit-xml={report}", "-p", "no:cacheprovider"]
        command += ["--continue-on-collection-errors", "tests/contracts", "tests/diffusion", "tests/metrics"]
        if place.small:
            command.append("--collect-only")
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=max(5.0, seconds))
        except subprocess.TimeoutExpired:
            return {"ended": f"not within {seconds:.0f} s"}
        lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines()
        rows = list(read(report)) if report.exists() and not place.small else []
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
