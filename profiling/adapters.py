"""How fast are our adapters beside the code of the models' authors, how much memory do they take, and do they agree?

    git clone https://github.com/xinntao/ESRGAN
    git clone https://github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement
    git clone https://github.com/msmsajjadi/EnhanceNet-Code
    git clone https://github.com/andreas128/SRFlow
    git clone https://github.com/cs-giung/FSRNet-pytorch
    git clone https://github.com/cydiachen/FSRNET_pytorch
    git clone https://github.com/adamian98/pulse
    pip install spandrel tensorflow-cpu opencv-python-headless
    python profiling/adapters.py --official FOLDER_OF_THE_CLONES

Each is optional: a row says what is not here. Some minutes on one quiet core (OMP_NUM_THREADS=1). Networks have the
released sizes and random weights, which the official code saves and both load. A call is a batch from pixels to pixels,
ours by the public `upscale`, without rounding to 8 bit. For the columns, see profiling/metrics.py. Memory is that of a
process of its own, by Linux's /proc and without a GPU's: the peak of imports, loading and a call, and what the call
adds to what is there. (A child's `ru_maxrss` would start at its parent's.)
"""

import importlib
import runpy
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import click
import torch
from metrics import Contender, interleaved, table
from torch import Tensor, nn

import baselines
from sr3eval.device import default_device
from sr3eval.diffusion.solvers import NoisePerImage
from sr3eval.images import from_signed, pillow_bicubic, round_to_8bit, to_signed, to_uint8

TARGET = 0.95  # how many times our time the official code must take
DEVICE = default_device()
GOLDENS = Path(__file__).parents[1] / "tests" / "baselines" / "goldens"
PROC = Path("/proc/self")
STEPS = {"steps": 1, "linear_start": 0.5, "linear_end": 0.5}
Call = Callable[[], Tensor]


def images(n: int, side: int) -> Tensor:
    """[n, 3, side, side] in [0, 1]."""
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def randomised(network: nn.Module) -> nn.Module:
    """With kernels that roughly keep the scale of their input."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return network


def released(network: nn.Module, weights: Path) -> nn.Module:
    """The network as the official scripts load it."""
    network.load_state_dict(torch.load(weights))
    return network.eval().to(DEVICE)


class Rrdb:
    """ESRGAN's network, by our adapter of that name beside the authors' code or by the one of spandrel beside that."""

    def __init__(self, adapter: str, n: int, side: int) -> None:
        self.adapter, self.lr = adapter, images(n, side)
        self.title = f"ESRGAN's network by {adapter}, {n}x{side}x{side}"

    def network(self, clones: Path) -> nn.Module:
        return runpy.run_path(str(clones / "ESRGAN" / "RRDBNet_arch.py"))["RRDBNet"](3, 3, 64, 23, gc=32)

    def save(self, clones: Path, weights: Path) -> None:
        network = randomised(self.network(clones))
        with torch.no_grad():  # most pixels are within [0, 1]
            network.conv_last.weight.mul_(0.02)
            network.conv_last.bias.add_(0.5)
        torch.save(network.state_dict(), weights)

    def theirs(self, clones: Path, weights: Path) -> Call:
        if self.adapter == "spandrel":
            descriptor = importlib.import_module("spandrel").ModelLoader(DEVICE).load_from_file(weights).eval()
            return lambda: descriptor(self.lr.to(DEVICE)).cpu()
        network = released(self.network(clones), weights)
        return lambda: network(self.lr.to(DEVICE)).clamp_(0, 1).cpu()

    def ours(self, weights: Path) -> Call:
        method = baselines.load(self.adapter, weights=str(weights), quantize="none")
        return lambda: method.upscale(self.lr, range(len(self.lr))).images


class Janspiry:
    """The U-Net of 16 -> 128 and a sampler's step around it: one to y_0, in which any difference of networks shows."""

    title, lr = "Janspiry's SR3, one step, 1x128x128", images(1, 16)

    def network(self, clones: Path) -> nn.Module:
        modules = clones / "Image-Super-Resolution-via-Iterative-Refinement" / "model" / "sr3_modules"
        unet, diffusion = (runpy.run_path(str(modules / f"{name}.py")) for name in ("unet", "diffusion"))
        options = {"inner_channel": 64, "attn_res": [16], "res_blocks": 2, "dropout": 0.2, "image_size": 128}
        network = diffusion["GaussianDiffusion"](unet["UNet"](**options), 128)
        network.set_new_noise_schedule({"schedule": "linear", "n_timestep": 1, **STEPS}, DEVICE)
        return network

    def save(self, clones: Path, weights: Path) -> None:
        torch.save(randomised(self.network(clones)).state_dict(), weights)

    def theirs(self, clones: Path, weights: Path) -> Call:
        network = released(self.network(clones), weights)
        x = to_signed(pillow_bicubic(self.lr, (128, 128))).to(DEVICE)
        y = NoisePerImage([0], x)()
        return lambda: from_signed(network.p_sample(y, 0, condition_x=x)).cpu()

    def ours(self, weights: Path) -> Call:
        method = baselines.load("sr3_janspiry", weights=str(weights), quantize="none", **STEPS)
        return lambda: method.upscale(self.lr, [0]).images


def enhancenet_recipe() -> SimpleNamespace:
    """What makes the tests' goldens, at the released size."""
    recipe = SimpleNamespace(**runpy.run_path(str(GOLDENS / "enhancenet.py")))
    recipe.graph.__globals__.update(CHANNELS=64, BLOCKS=10)
    return recipe


class EnhanceNet:
    """The official graph in a session of TensorFlow's."""

    title, lr = "EnhanceNet, 1x64x64", images(1, 64)

    def session(self, clones: Path) -> tuple[Any, Any, Any, Any]:
        """TensorFlow, a session with the graph, its input and its output."""
        import tensorflow.compat.v1 as tf

        recipe, threads = enhancenet_recipe(), torch.get_num_threads()
        with mock.patch.dict(sys.modules):
            layers = recipe.official_layers(tf, str(clones / "EnhanceNet-Code"))
        with tf.Graph().as_default() as graph:
            x = tf.placeholder(tf.float32, (1, 64, 64, 3))
            y = recipe.graph(tf, layers, x)[-1]
        config = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=1)
        return tf, tf.Session(graph=graph, config=config), x, y

    def save(self, clones: Path, weights: Path) -> None:
        tf, session, *_ = self.session(clones)
        with session.graph.as_default():
            for variable in tf.global_variables():
                shape = variable.shape.as_list()
                gain = 0.05 if shape[-1] == 3 else 1  # most pixels are within [0, 1]
                session.run(variable.assign(gain * enhancenet_recipe().fill(variable.op.name, shape)))
            saver = tf.train.Saver(write_version=tf.train.SaverDef.V1)
            saver.save(session, str(weights), write_meta_graph=False, write_state=False)

    def theirs(self, clones: Path, weights: Path) -> Call:
        tf, session, x, y = self.session(clones)
        with session.graph.as_default():
            tf.train.Saver().restore(session, str(weights))
        pixels, means = self.lr.permute(0, 2, 3, 1).numpy(), enhancenet_recipe().MEANS
        return lambda: torch.from_numpy(session.run(y, {x: pixels - means})).permute(0, 3, 1, 2).clamp(0, 1)

    def ours(self, weights: Path) -> Call:
        method = baselines.load("enhancenet", weights=str(weights), quantize="none")
        return lambda: method.upscale(self.lr, [0]).images


class SRFlow:
    """A network as one of the official configs has it, from an LR image to a sample."""

    def __init__(self, config: str, side: int) -> None:
        self.config, self.lr = config, images(1, side)
        self.title = f"{config}, 1x{side}x{side}"

    def recipe(self, name: str) -> Any:
        """A function of what makes the tests' goldens."""
        return runpy.run_path(str(GOLDENS / "srflow.py"))[name]

    def model(self, clones: Path) -> Any:
        with redirect_stdout(None):  # it prints its options
            return self.recipe("official")(str(clones / "SRFlow"), self.config, reduced=False).model

    def save(self, clones: Path, weights: Path) -> None:
        shapes = {key: tuple(value.shape) for key, value in self.model(clones).netG.module.state_dict().items()}
        weight = self.recipe("weight")
        torch.save({key: torch.from_numpy(weight(key, shape)) for key, shape in shapes.items()}, weights)

    def theirs(self, clones: Path, weights: Path) -> Call:
        model = self.model(clones)
        released(model.netG.module, weights)

        def sampled() -> Tensor:
            torch.manual_seed(0)
            return model.get_sr(lq=self.lr.to(DEVICE), heat=0.9).clamp(0, 1).cpu()

        return sampled

    def ours(self, weights: Path) -> Call:
        method = baselines.load("srflow", weights=str(weights), quantize="none")
        return lambda: method.upscale(self.lr, [0]).images


class Fsrnet:
    """Two ports of FSRNet: A normalises by each image, as its scripts do, and B by running statistics."""

    def __init__(self, port: str) -> None:
        self.port, self.clone = port, {"a": "FSRNet-pytorch", "b": "FSRNET_pytorch"}[port]
        self.lr = round_to_8bit(images(1, 16))
        self.title = f"FSRNet by {self.clone}, 1x16x16"

    def recipe(self) -> SimpleNamespace:
        """What makes the tests' goldens."""
        return SimpleNamespace(**runpy.run_path(str(GOLDENS / "fsrgan.py")))

    def network(self, clones: Path) -> nn.Module:
        recipe = self.recipe()
        return {"a": recipe.network_a, "b": recipe.network_b}[self.port](clones / self.clone)

    def save(self, clones: Path, weights: Path) -> None:
        weight = self.recipe().weight
        state = {
            key: torch.from_numpy(weight(key, value.shape)) for key, value in self.network(clones).state_dict().items()
        }
        torch.save(state, weights)

    def theirs(self, clones: Path, weights: Path) -> Call:
        network, recipe = released(self.network(clones), weights), self.recipe()
        pixels = to_uint8(self.lr)[0].numpy()
        if self.port == "a":
            network.train()
            return lambda: from_signed(network(recipe.input_a(clones / self.clone, pixels).to(DEVICE))[2]).cpu()
        importlib.import_module("cv2")  # of input_b; missing, it is said here
        return lambda: network(recipe.input_b(pixels).to(DEVICE))[2].clamp(0, 1).cpu()

    def ours(self, weights: Path) -> Call:
        method = baselines.load("fsrgan", weights=str(weights), quantize="none")
        return lambda: method.upscale(self.lr, [0]).images


class Pulse:
    """Two images of a search and the step between them.

    eps is one that every image meets, since the official code gives none otherwise. L2 has no gradient then, though as
    much is computed: the difference is that of the networks and of GEOCROSS's step. The tests compare whole searches.
    """

    title, lr = "PULSE, two steps, 1x16x16", images(1, 16)

    def recipe(self) -> SimpleNamespace:
        """What makes the tests' goldens."""
        return SimpleNamespace(**runpy.run_path(str(GOLDENS / "pulse.py")))

    def save(self, clones: Path, weights: Path) -> None:
        recipe = self.recipe()
        torch.save(recipe.synthesis_state(recipe.RELEASED), weights)
        torch.save(recipe.fit_state(), weights.with_name("gaussian_fit.pt"))

    def theirs(self, clones: Path, weights: Path) -> Call:
        recipe = self.recipe()
        search = recipe.model(recipe.official(clones / "pulse", {}), iter([torch.load(weights)]), recipe.fit_state())
        options = recipe.DEFAULTS | {"eps": 1.0, "seed": 1, "steps": 2, "save_intermediate": False}

        @torch.enable_grad()
        def searched() -> Tensor:
            return next(search(self.lr, **options))[0]

        return searched

    def ours(self, weights: Path) -> Call:
        files = {"synthesis": str(weights), "gaussian_fit": str(weights.with_name("gaussian_fit.pt"))}
        method = baselines.load("pulse", **files, quantize="none", eps=1.0, steps=2)
        return lambda: method.upscale(self.lr, [1]).images


CASES = {
    "esrgan": partial(Rrdb, "esrgan", 1, 64),
    "esrgan_batch": partial(Rrdb, "esrgan", 16, 16),
    "spandrel": partial(Rrdb, "spandrel", 1, 64),
    "spandrel_batch": partial(Rrdb, "spandrel", 16, 16),
    "sr3_janspiry": Janspiry,
    "enhancenet": EnhanceNet,
    "srflow": partial(SRFlow, "SRFlow_DF2K_4X", 32),
    "srflow_faces": partial(SRFlow, "SRFlow_CelebA_8X", 20),
    "fsrnet_a": partial(Fsrnet, "a"),
    "fsrnet_b": partial(Fsrnet, "b"),
    "pulse": Pulse,
}


def kilobytes(name: str) -> int:
    lines = (PROC / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@torch.no_grad()
def memory(prepare: Callable[[], Call]) -> str:
    """Peak of this process, which a call ends, and of the call above what was there before."""
    call = prepare()
    loaded, before = kilobytes("VmHWM"), kilobytes("VmRSS")
    (PROC / "clear_refs").write_text("5")  # the peak starts anew
    call()
    peak = kilobytes("VmHWM")
    return f"{max(loaded, peak) / 1024:.0f} MiB (the call adds {(peak - before) / 1024:.0f})"


def alone(prepare: Callable[[], Call]) -> str:
    """memory(prepare) in a fresh process."""
    if not (PROC / "clear_refs").exists():
        return "not measured: needs /proc"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(memory, prepare).result()


@torch.no_grad()
def contest(name: str, clones: Path, weights: Path, rounds: int) -> None:
    """Print a case's table."""
    case, peer = CASES[name](), "spandrel" if name.startswith("spandrel") else "official code"
    try:
        case.save(clones, weights)
        prepare = {"sr3eval": partial(case.ours, weights), peer: partial(case.theirs, clones, weights)}
        contenders = [Contender(side, 1, call()) for side, call in prepare.items()]
    except (FileNotFoundError, ModuleNotFoundError) as error:
        click.echo(f"\n{case.title}\n{peer:32}  not here: {error}")
        return
    contenders[1].target = TARGET
    peaks = {side: alone(call) for side, call in prepare.items()}
    for contender in contenders:
        contender.call()  # warm
    interleaved(contenders, rounds)
    table(f"{case.title}, a batch", contenders, lambda own, other: f"{(own - other).abs().max():.1e}")
    click.echo("Peak memory: " + "; ".join(f"{side} {peak}" for side, peak in peaks.items()))


@click.command()
@click.option("--official", required=True, type=click.Path(path_type=Path), help="The folder of the clones.")
@click.option("--rounds", default=9, show_default=True, help="How often every contender is timed.")
@click.option("--case", "chosen", multiple=True, type=click.Choice(list(CASES)), help="Only these tables.")
def main(official: Path, rounds: int, chosen: tuple[str, ...]) -> None:
    """Print the tables."""
    click.echo(f"torch {torch.__version__}, {DEVICE}, {torch.get_num_threads()} threads, {rounds} rounds")
    for name in chosen or CASES:
        with tempfile.TemporaryDirectory() as folder:
            contest(name, official.resolve(), Path(folder) / "weights.pth", rounds)


if __name__ == "__main__":
    main()
