"""What the processes of one job agree on, in two processes that `torchrun` starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sr3eval.distributed import Job, job, speaks
from sr3eval.errors import UserError

ROOT = Path(__file__).parent.parent
SCRIPT = """
import json, sys
from contextlib import contextmanager
from pathlib import Path
from sr3eval.distributed import job, speaks
from sr3eval.errors import UserError

here = job()
seen = {"own": list(here.own(range(5))), "gathered": here.gather(here.rank * 10)}
seen["part"], seen["mapped"] = list(here.part(range(6))), here.map(lambda n: n * n, range(5))
seen["largest"] = [here.largest(2 * here.rank), here.largest(0)]
seen["led"] = here.lead(lambda: f"from {here.rank}")
def refuse():
    raise UserError(f"refused by {here.rank}")
try:
    here.lead(refuse)
except UserError as error:
    seen["error"] = str(error)
@contextmanager
def held():
    Path(sys.argv[1], f"held by {here.rank}").touch()
    yield
with here.lead_in(held()):
    seen["held"] = [path.name for path in Path(sys.argv[1]).glob("held*")]
add = here.tally("images")
add(here.rank + 1)
here.wait()
seen["tally"] = add(0)
seen["speaks"] = sorted(here.gather(speaks()))
Path(sys.argv[1], f"{here.rank}.json").write_text(json.dumps(seen))
"""


def test_processes_share_work_results_and_errors(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*launch, tmp_path / "script.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first.pop("own") == [0, 2, 4] and second.pop("own") == [1, 3]
    assert first.pop("part") == [0, 1, 2] and second.pop("part") == [3, 4, 5]
    agreed = {"gathered": [0, 10], "mapped": [0, 1, 4, 9, 16], "largest": [2, 0], "held": ["held by 0"]}
    agreed |= {"led": "from 0", "error": "refused by 0", "tally": 3, "speaks": [False, True]}
    assert first == second == agreed


def test_one_process_is_a_job():
    assert job() == Job() and job().leads
    assert job().gather("x") == ["x"] and list(job().own([1, 2])) == [1, 2] and job().lead(lambda: 3) == 3
    assert job().part([1, 2]) == [1, 2] and job().map(str, [1, 2]) == ["1", "2"] and job().largest(3) == 3 and speaks()
    add = job().tally("images")
    assert [add(2), add(3)] == [2, 5]

    def refuse():
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        job().lead(refuse)
