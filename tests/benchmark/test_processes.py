"""Runs of several processes, as `torchrun` starts them: the bytes of one, whatever their number, and after kills."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import tomli_w
import torch

from sr3eval.benchmark import processes, run
from sr3eval.distributed import Job
from sr3eval.errors import UserError
from sr3eval.features.moments import Moments
from sr3eval.images import load, save
from sr3eval.metrics import Batch, Convention, SetMetric, counting, leave_one_out, shard_of
from sr3eval.metrics._sets import Counted
from tests.processes import ACCELERATE, TORCHRUN

ROOT = Path(__file__).parents[2]

# A method that draws from its seeds and can be told to die, a metric of sets, and one whose state is a sum of floats.
OWN = """
import os, signal
import torch
import torch.nn.functional as F
from sr3eval.features.moments import Moments
from sr3eval.features.networks import Network
from sr3eval.method import Method, Upscaled
from sr3eval.metrics import Convention, Result, SetMetric, leave_one_out
from sr3eval.metrics.fid import distance

class Noisy(Method):
    name, scale, stochastic, calls = "noisy", 4, True, 0
    def upscale(self, lr, seeds, progress=None):
        Noisy.calls += 1
        if os.environ.get("KILL") == f"{os.environ.get('RANK')} {Noisy.calls}":
            os.kill(os.getpid(), signal.SIGKILL)
        sr = F.interpolate(lr, scale_factor=4)
        if os.environ.get("BAD_RANK") == os.environ.get("RANK", "0"):
            sr = sr * float("nan")
        noise = torch.stack([torch.randn(sr.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds])
        return Upscaled((sr + 0.05 * noise).clamp(0, 1), [{"even": seed % 2 == 0} for seed in seeds])

def method(): return Noisy()

def features(images): return F.adaptive_avg_pool2d(images, (2, 2)).flatten(1).double()

def frechet():
    convention = Convention("mine", "Mine", False, "of means of blocks")
    return SetMetric(convention, features, Moments, leave_one_out(distance, minimum=2))

def spread():
    convention = Convention("spread", "Spread", True, "of means of blocks", needs_hr=False)
    trace = lambda own, _: float(own.statistics()[1].trace())
    return SetMetric(convention, features, Moments, leave_one_out(trace, minimum=2))

class Summed:
    convention = Convention("summed", "Summed", False, "mean absolute difference")
    name, higher_is_better = "summed", False
    def __init__(self): self.state = (0.0, 0)
    def check(self, n, labelled, hr=True, sizes=()): pass
    def fresh(self): return Summed()
    def update(self, batch):
        for difference in (batch.sr - batch.hr).abs().mean(dim=(1, 2, 3)).double():
            self.state = (self.state[0] + difference.item() / 3, self.state[1] + 1)
    def merge(self, other): self.state = (self.state[0] + other.state[0], self.state[1] + other.state[1])
    def compute(self): return Result(self.state[0] / self.state[1], self.state[1])

def summed(): return Summed()

class Blocks(torch.nn.Module):
    def forward(self, x): return features(x).float()
def network(): return Network("blocks", 12, Blocks(), lambda x: x, lambda module, x: (module(x), module(x)))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two sets of images, 13 squares and 7 whole ones, and mine.py."""
    folder = tmp_path_factory.mktemp("world")
    generator = torch.Generator().manual_seed(0)
    for name, count, size in (("squares", 13, (64, 64)), ("wide", 7, (48, 72))):
        for index in range(count):
            coarse = torch.rand(1, 3, 9, 9, generator=generator)
            image = torch.nn.functional.interpolate(coarse, size, mode="bicubic")[0].clamp(0, 1)
            save(folder / name / f"{index:02d}.png", image)
    (folder / "mine.py").write_text(OWN)
    return folder


def config(world):
    mine = world / "mine.py"
    own = [{"name": name, "python": f"{mine}:{build}"} for name, build in (("mine", "frechet"), ("summed", "summed"))]
    noisy = {"name": "noisy", "python": f"{mine}:method"}
    return {
        "task": {"scale": 4},
        "batch_size": 2,
        "metrics": ["psnr", "ssim", "consistency", "diversity", *own],
        "data": [{"name": name, "images": str(world / name)} for name in ("squares", "wide")],
        "method": [
            {"kind": "bicubic"},
            noisy | {"samples": 2},
            noisy | {"name": "seeded", "seeds": [1, 2]},
            {"name": "copied", "kind": "precomputed", "folder": str(world / "copies")},
        ],
    }


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory, one_thread):
    """The files of the run that one process makes."""
    folder = tmp_path_factory.mktemp("alone")
    for name in ("squares", "wide"):
        for path in (world / name).iterdir():
            save(world / "copies" / name / path.name, load(path).flip(-1))
    run(config(world), folder / "run")
    return files(folder / "run")


def files(folder):
    """Contents by path; the report's commands name the folder."""
    found = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {p.relative_to(folder).as_posix(): p.read_bytes().replace(str(folder).encode(), b"RUN") for p in found}


@pytest.fixture
def benchmark(jobs):
    """Runs benchmark.py in so many processes, or as a launcher starts them: exit code and output."""

    def run_all(settings, out, ranks=None, launcher=(), **environment):
        path = out.with_suffix(".toml")
        path.write_text(tomli_w.dumps(settings))
        return jobs.run(*launcher, ROOT / "benchmark.py", "run", path, "--out", out, ranks=ranks, **environment)

    return run_all


class Threads(Job):
    """Processes of a job, as threads of this one."""

    def __init__(self, rank, count, slots, barrier):
        super().__init__(rank, count)
        self.__dict__.update(slots=slots, barrier=barrier)

    def gather(self, value):
        self.barrier.wait(10)
        self.slots[self.rank] = value
        self.barrier.wait(10)
        return list(self.slots)


@pytest.fixture
def in_three(monkeypatch):
    """A function: what another one gives, or the UserError that it raises, in each of three processes."""
    slots, barrier, own = [None] * 3, threading.Barrier(3), threading.local()
    monkeypatch.setattr(processes, "job", lambda: own.job)

    def outcome(function, rank):
        own.job = Threads(rank, 3, slots, barrier)
        try:
            return function(rank)
        except UserError as error:
            return str(error)

    def run_all(function):
        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(lambda rank: outcome(function, rank), range(3)))

    return run_all


def test_work_is_dealt_anew_to_whoever_is_free(in_three, monkeypatch):
    """Process 1 takes 10 s an item and has one a turn; the others take 0.3 s and have four in a second."""
    seen, told, clock = [], {rank: [] for rank in range(3)}, threading.local()
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def share(rank):
        clock.now = 0.0

        def work(item):
            seen.append((rank, item))
            clock.now += 10 if rank == 1 else 0.3
            return 2 if item % 2 else 0

        processes.deal(range(30), work, told[rank].append)

    in_three(share)
    assert sorted(item for _, item in seen) == list(range(30))
    assert [sum(who == rank for who, _ in seen) for rank in range(3)] == [13, 4, 13]
    assert told[0] == told[1] == told[2] and len(told[0]) == 4 and sum(told[0]) == 30


def test_results_come_in_order_and_an_error_of_one_is_everyones(in_three):
    def squares(rank):
        return list(processes.rounds(range(8), lambda item: item, lambda item: (item**2, rank)))

    assert in_three(squares) == [[(item**2, item % 3) for item in range(8)]] * 3

    def refuse(rank):
        def work(item):
            if item == 4:
                raise UserError(f"refused by {rank}")
            return item

        return list(processes.rounds(range(8), lambda item: item, work))

    assert in_three(refuse) == ["refused by 1"] * 3


def test_several_threads_load_and_results_stay_in_order():
    both = threading.Barrier(2, timeout=20)

    def load(item):
        both.wait()  # until another thread is here
        time.sleep(0.02 * (item % 2 == 0))
        return item

    assert list(processes.prefetched(load, range(6), 2)) == list(range(6))
    assert list(processes.prefetched(str, [], 2)) == [] and processes.readers() >= 1


def test_two_processes_write_the_bytes_of_one(world, alone, benchmark, tmp_path):
    code, output = benchmark(config(world), tmp_path / "run", launcher=(*TORCHRUN, "--nproc-per-node=2"))
    assert code == 0, output
    assert files(tmp_path / "run") == alone
    assert output.count("report.html") == 1


def test_a_killed_rank_ends_the_job_which_four_processes_resume(world, alone, benchmark, tmp_path):
    begun = time.monotonic()
    code, output = benchmark(config(world), tmp_path / "run", launcher=(*TORCHRUN, "--nproc-per-node=2"), KILL="1 3")
    assert code != 0 and time.monotonic() - begun < 60
    assert "SIGKILL" in output or "-9" in output
    made = len(list((tmp_path / "run" / "images" / "noisy").rglob("*.png")))
    assert 0 < made < 20 and not (tmp_path / "run" / "results.csv").exists()
    code, output = benchmark(config(world), tmp_path / "run", ranks=4)
    assert code == 0, output
    assert files(tmp_path / "run") == alone


def test_an_error_of_one_rank_is_one_line_and_leaves_a_run_that_resumes(world, alone, benchmark, tmp_path):
    code, output = benchmark(config(world), tmp_path / "run", ranks=2, BAD_RANK="1")
    assert code == 1
    assert [line for line in output.splitlines() if line.startswith("Error:")] == [
        'Error: method "noisy", batch of squares/02: gave NaN or infinite pixels'
    ]
    run(config(world), tmp_path / "run")
    assert files(tmp_path / "run") == alone


def test_a_process_that_only_looks_keeps_no_features():
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    batches = [Batch(ids, images[part], images[part].flip(-1)) for ids, part in (("ab", slice(2)), ("cd", slice(2, 4)))]
    convention = Convention("mean", "Mean", False, "of channels")
    value = leave_one_out(lambda own, hr: float((own.statistics()[1] - hr.statistics()[1]).sum()), minimum=2)
    whole = SetMetric(convention, lambda x: x.mean(dim=(2, 3)), Moments, value)
    total, looking = whole.fresh(), counting(whole.fresh())
    for batch in batches:
        whole.update(batch)
        shard = shard_of(looking)
        shard.update(batch)
        for metric in (looking, total):
            metric.merge(shard)
    assert total.compute() == whole.compute()
    assert {type(summary) for summary in looking.state.own.blocks.values()} == {Counted}
    assert looking.state.own.ids == looking.state.reference.ids == set("abcd")


SCRIPT = """
import sys
import tomllib
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import mine
from sr3eval.benchmark import processes, run
from sr3eval.distributed import Job
from sr3eval.errors import UserError
from sr3eval.benchmark.statistics import statistics

world, out = map(Path, sys.argv[1:])
statistics(world / "squares", "photos_16_64", mine.network(), out / "squares.npz", 2)
run(tomllib.loads(Path(out, "generated.toml").read_text()), out / "generated")
"""


def test_statistics_and_runs_of_generated_images_are_shared_too(world, alone, jobs, tmp_path):
    """By another launcher: accelerate's."""
    spread = {"name": "spread", "python": f"{world / 'mine.py'}:spread"}
    folders = {"squares": world / "squares", "copies": world / "copies" / "wide"}
    methods = [{"name": name, "kind": "precomputed", "folder": str(folder)} for name, folder in folders.items()]
    generated = {"metrics": [spread], "generated": {}, "method": methods}
    (tmp_path / "script.py").write_text(SCRIPT)
    launcher = (*ACCELERATE, "--multi_gpu", "--num_processes=2")
    for out, launched in ((tmp_path / "one", ()), (tmp_path / "two", launcher)):
        out.mkdir()
        (out / "generated.toml").write_text(tomli_w.dumps(generated))
        code, output = jobs.run(*launched, tmp_path / "script.py", world, out)
        assert code == 0, output
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert {"squares.npz", "generated/results.csv", "generated/sheets/copies.png"} <= set(files(tmp_path / "two"))
