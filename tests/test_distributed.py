"""What the processes of one job agree on, in two processes that `torchrun` starts."""

import json
import subprocess
import sys

import pytest

from sr3eval.distributed import Job, job
from sr3eval.errors import UserError

SCRIPT = """
import json, sys
from pathlib import Path
from sr3eval.distributed import job
from sr3eval.errors import UserError

here = job()
seen = {"own": list(here.own(range(5))), "gathered": here.gather(here.rank * 10)}
seen["led"] = here.lead(lambda: f"from {here.rank}")
def refuse():
    raise UserError(f"refused by {here.rank}")
try:
    here.lead(refuse)
except UserError as error:
    seen["error"] = str(error)
here.wait()
Path(sys.argv[1], f"{here.rank}.json").write_text(json.dumps(seen))
"""


def test_processes_share_work_results_and_errors(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*launch, tmp_path / "script.py", tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first.pop("own") == [0, 2, 4] and second.pop("own") == [1, 3]
    assert first == second == {"gathered": [0, 10], "led": "from 0", "error": "refused by 0"}


def test_one_process_is_a_job():
    assert job() == Job() and job().leads
    assert job().gather("x") == ["x"] and list(job().own([1, 2])) == [1, 2] and job().lead(lambda: 3) == 3

    def refuse():
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        job().lead(refuse)
