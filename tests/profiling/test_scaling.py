"""profiling/scaling.py: what is worked out, against a calculation by hand; and its runs of benchmark.py, in small."""

import pytest
import scaling
from click.testing import CliRunner

from sr3eval.distributed import ALONE

CLUSTER = scaling.Cluster(reached=0.5, hop=1e-5, bucket=1e6, hidden=0.5)


def test_an_all_reduce_sends_twice_and_is_slower_between_machines():
    """100 buckets of latencies: 2 log2(8) = 6 and 2 log2(64) = 12 hops."""
    assert CLUSTER.all_reduce(1e8, 8) == pytest.approx(2 * 7 / 8 * 1e8 / 225e9 + 100 * 6e-5)
    assert CLUSTER.all_reduce(1e8, 64) == pytest.approx(2 * 63 / 64 * 1e8 / 200e9 + 100 * 12e-5)


def test_a_step_waits_for_what_the_backward_pass_does_not_hide():
    network = scaling.Network(parameters=10**9, gflop=1.0, batch=1, image=0.03, evaluation=0.01, like="x")
    rest = 13 * 4e9 / 4.8e12
    assert network.step(4, CLUSTER) == pytest.approx(0.12 + rest)
    sent = CLUSTER.all_reduce(4e9, 8)
    assert network.step(4, CLUSTER, 8) == pytest.approx(0.12 + rest + sent - 0.5 * 0.08)
    assert network.step(400, CLUSTER, 8) == pytest.approx(12 + rest)


@pytest.mark.parametrize("name", scaling.MEASURED)
def test_measured_networks_take_the_measured_time(name):
    """Whose steps did not have clipping and EMA: 6 numbers a parameter."""
    network, found = scaling.Network.of(name, scaling.Cluster()), scaling.MEASURED[name]
    more = 6 * 4 * network.parameters / 4.8e12
    assert network.step(found.batch, scaling.Cluster()) == pytest.approx(found.batch / found.training + more)


def test_others_are_scaled_by_their_operations():
    other, like = (scaling.Network.of(name, scaling.Cluster()) for name in ("faces_256_1024", "faces_64_512"))
    assert other.image / like.image == pytest.approx(other.gflop / like.gflop)
    assert other.evaluation / like.evaluation == pytest.approx(other.gflop / like.gflop)


def test_the_sheet_has_every_preset_on_every_number_of_gpus():
    lines = CliRunner().invoke(scaling.main, ["sheet"]).output.splitlines()
    for names in scaling.alike():
        assert [line.split(" | ")[1] for line in lines if line.startswith(f"| {', '.join(names)} |")][1:] == [
            "8",
            "64",
            "512",
        ]
    assert len(scaling.alike()) == len(scaling.PRESETS) - 1  # 64 to 256 of faces and of ImageNet are one network


def test_a_run_of_the_benchmark_begins_from_nothing(monkeypatch):
    runs = []
    monkeypatch.setattr(scaling, "run", lambda config, out: runs.append((config, out.parent.exists())))
    scaling.making(ALONE, 4)()
    ((config, begun),) = runs
    assert config["data"]["limit"] == 4 and begun
