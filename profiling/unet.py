"""How fast is our U-Net, how much does it keep for the backward pass, and how do other projects' do?

    git clone https://github.com/openai/guided-diffusion
    git clone https://github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement janspiry
    python profiling/unet.py --peer guided=guided-diffusion --peer janspiry=janspiry

Five minutes on two quiet cores. All networks have the same widths: 64x64 pixels, 64 channels times 1, 2, 4, 8, two
blocks a level, attention at 16x16, batches of 4. Everything takes turns in every round, a product of matrices of
3072x3072 included, by which machines compare (convolutions may come from a faster library). Ours has more FLOPs at
these widths, as its blocks resample, so that times are a GFLOP, too; a training step, here without the optimiser's,
counts three forward passes, whatever runs twice. Columns: median and least milliseconds, milliseconds a GFLOP and that
beside the product's; MiB that the forward pass keeps for the backward pass, beyond the weights.
"""

import importlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import click
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sr3eval.device import has_bfloat16
from sr3eval.diffusion.activations import checkpoint_activations
from sr3eval.diffusion.unet import UNet, UNetConfig

CPU = torch.device("cpu")
SIZES = {"channels": 64, "multipliers": (1, 2, 4, 8), "blocks": 2, "side": 64, "batch": 4}
SMALL = {"channels": 32, "multipliers": (1, 2), "blocks": 1, "side": 16, "batch": 1}
PRODUCT = 3072


@dataclass
class Contender:
    """Something to time: its name, a call, the call's GFLOP, and what it keeps in MiB."""

    name: str
    call: Callable[[], object]
    gflop: float | None = None
    kept: float | None = None
    seconds: list[float] = field(default_factory=list)


def ours(channels: int, multipliers: tuple[int, ...], blocks: int, side: int, batch: int) -> nn.Module:
    network = UNet(UNetConfig(channels, multipliers, blocks, side))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def guided(channels: int, multipliers: tuple[int, ...], blocks: int, side: int, batch: int) -> nn.Module:
    """guided-diffusion's UNetModel; its attention goes by the factor that the side is reduced by."""
    model = importlib.import_module("guided_diffusion.unet").UNetModel
    return model(side, 6, channels, 3, blocks, {side // 16}, channel_mult=multipliers)


def janspiry(channels: int, multipliers: tuple[int, ...], blocks: int, side: int, batch: int) -> nn.Module:
    """Janspiry's UNet of SR3; its noise levels are [N, 1]."""
    module = importlib.import_module("model.sr3_modules.unet")
    network = module.UNet(6, 3, channels, 32, multipliers, (16,), blocks, image_size=side)
    network.register_forward_pre_hook(lambda _, inputs: (inputs[0], inputs[1][:, None]))
    return network


PEERS = {"guided": guided, "janspiry": janspiry}


def contenders(name: str, network: nn.Module, sizes: dict, bf16: bool) -> list[Contender]:
    """Forward pass and training step without the optimiser."""
    layout = torch.channels_last if name.startswith("ours") else torch.contiguous_format
    x = torch.randn(sizes["batch"], 6, sizes["side"], sizes["side"]).contiguous(memory_format=layout)
    level = torch.full((sizes["batch"],), 0.5)

    def forward() -> Tensor:
        return network(x, level)

    @torch.inference_mode()
    def sample() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return forward()

    def train() -> None:
        network.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):  # guided's checkpointing runs forward once more
            forward().float().abs().mean().backward()

    def keeping() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return kept(forward, network)

    suffix, flops = "bfloat16" if bf16 else "float32", gflop(sample)
    return [
        Contender(f"{name}, forward, {suffix}", sample, flops),
        Contender(f"{name}, training step, {suffix}", train, 3 * flops, keeping()),
    ]


def optimiser(name: str, network: nn.Module, fused: bool) -> Contender:
    """Adam's step, as the project calls it."""
    adam = torch.optim.Adam(network.parameters(), 1e-4, fused=fused)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in network.parameters()]

    def step() -> None:
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.grad = gradient
        adam.step()

    return Contender(f"{name}, optimiser", step)


def gflop(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def kept(forward: Callable[[], Tensor], network: nn.Module) -> float:
    """MiB of distinct storage, weights aside, that autograd keeps from a forward pass to the backward pass."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    assert output.requires_grad
    return sum(storage.nbytes() for storage in storages.values()) / 2**20


def product(dtype: torch.dtype, side: int) -> Contender:
    a, b = torch.randn(2, side, side).to(dtype)
    return Contender(f"product of matrices, {str(dtype).removeprefix('torch.')}", lambda: a @ b, 2 * side**3 / 1e9)


def prepared(peers: dict[str, Path], sizes: dict, precisions: list[bool]) -> list[Contender]:
    """Everything that takes turns. Weights of last convolutions start at zero, which is as fast as others."""
    torch.manual_seed(0)
    found: list[Contender] = []
    networks = {"ours": ours(**sizes), "ours, norms recomputed": ours(**sizes), "ours, all levels": ours(**sizes)}
    checkpoint_activations(networks["ours, norms recomputed"], "norms")  # type: ignore[arg-type]
    checkpoint_activations(networks["ours, all levels"], range(len(sizes["multipliers"])))  # type: ignore[arg-type]
    for name, path in peers.items():
        sys.path.insert(0, str(path))
        networks[name] = PEERS[name](**sizes)
    for bf16 in precisions:
        found.append(product(torch.bfloat16 if bf16 else torch.float32, PRODUCT if sizes is SIZES else 64))
        for name, network in networks.items():
            both = contenders(name, network, sizes, bf16)
            found += both if name in ("ours", *peers) else both[1:]
    return found + [optimiser(name, networks[name], name == "ours") for name in ("ours", *peers)]


def table(found: list[Contender]) -> None:
    click.echo(f"{'':48}{'median ms':>11}{'least ms':>10}{'GFLOP':>8}{'ms/GFLOP':>10}{'x product':>11}{'MiB kept':>10}")
    rate = 0.0  # of the product of the same precision, which comes first
    for contender in found:
        median, least = statistics.median(contender.seconds), min(contender.seconds)
        line = f"{contender.name:48}{1000 * median:11.1f}{1000 * least:10.1f}"
        if contender.gflop is not None:
            each = 1000 * median / contender.gflop
            rate = each if contender.name.startswith("product") else rate
            line += f"{contender.gflop:8.1f}{each:10.2f}{each / rate:11.2f}"
        click.echo(line + (f"{contender.kept:10.0f}" if contender.kept is not None else ""))


@click.command()
@click.option("--peer", multiple=True, metavar="NAME=PATH", help="A checkout beside ours: guided or janspiry.")
@click.option("--rounds", default=9, show_default=True)
@click.option("--small", is_flag=True, help="Tiny networks, to try it.")
def main(peer: tuple[str, ...], rounds: int, small: bool) -> None:
    """Print the table."""
    peers = {name: Path(path) for name, _, path in (text.partition("=") for text in peer)}
    unknown = sorted(peers.keys() - PEERS.keys())
    if unknown:
        raise click.UsageError(f"--peer {unknown[0]}: knows {' and '.join(PEERS)}")
    found = prepared(peers, SMALL if small else SIZES, [False, *([True] if has_bfloat16(CPU) else [])])
    for turn in range(rounds + 1):
        for contender in found:
            began = time.perf_counter()
            contender.call()
            if turn:  # the first warms up
                contender.seconds.append(time.perf_counter() - began)
    load = Path("/proc/loadavg")
    busy = f"; load {load.read_text().split()[0]}" if load.exists() else ""
    click.echo(f"{rounds} rounds, {torch.get_num_threads()} threads{busy}; PyTorch {torch.__version__}")
    table(found)


if __name__ == "__main__":
    main()
