"""profiling/unet.py in small."""

import torch
import unet
from click.testing import CliRunner


def test_prints_a_row_for_each_way():
    result = CliRunner().invoke(unet.main, ["--rounds", "1", "--small"])
    assert result.exit_code == 0, result.output
    for row in (
        "product of matrices, float32",
        "ours, forward, float32",
        "ours, training step, float32",
        "ours, optimiser",
    ):
        assert sum(line.startswith(row) for line in result.output.splitlines()) == 1


def test_unknown_peers_are_refused():
    result = CliRunner().invoke(unet.main, ["--peer", "other=somewhere"])
    assert (result.exit_code, "--peer other: knows guided and janspiry" in result.output) == (2, True)


def test_counts_what_is_kept_and_computed():
    """A linear layer keeps its input for the weight's gradient, and multiplies 2 * 8 * 16 * 32 times."""
    layer, x = torch.nn.Linear(16, 32), torch.randn(8, 16)
    assert unet.kept(lambda: layer(x), layer) == x.nbytes / 2**20
    assert unet.gflop(lambda: layer(x)) == 2 * 8 * 16 * 32 / 1e9
