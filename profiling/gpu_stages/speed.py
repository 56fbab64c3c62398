"""How fast the paper's networks train and sample on this machine, and the metrics' networks and distance."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from gpu_stages.job import Found, Job, rounded
from torch.utils.flop_counter import FlopCounterMode

from sr3eval.diffusion.loss import sr3_loss
from sr3eval.diffusion.preconditioners import SR3Preconditioner
from sr3eval.diffusion.presets import PRESETS
from sr3eval.diffusion.unet import UNetConfig
from sr3eval.metrics.fid import frechet_distance

PEAK = 800e12  # FLOP/s in bf16 of a matrix product on the machine that this was written for
ENOUGH = 0.8  # seconds to time a call for
Row = dict[str, object]
SMALL = UNetConfig(channels=8, multipliers=(1, 2), blocks=1, image_size=16)


@dataclass(frozen=True)
class Way:
    """How a network is computed."""

    name: str
    tf32: bool = False
    bf16: bool = False
    channels_last: bool = False
    compile: bool = False


WAYS = (
    Way("float32"),
    Way("TF32", tf32=True),
    Way("bf16", tf32=True, bf16=True),
    Way("bf16, channels-last", tf32=True, bf16=True, channels_last=True),
    Way("bf16, channels-last, compiled norms", tf32=True, bf16=True, channels_last=True, compile=True),
)
SHAPES = {"64 to 256": ("faces_64_256", 256, 8), "64 to 512": ("faces_64_512", 512, 2)}


def run(job: Job, seconds: float) -> Found:
    """Time what fits into `seconds`, the most wanted first; what does not is named. Rows are kept as they come."""
    end = time.monotonic() + seconds
    found: Found = {"peak_TFLOP/s": PEAK / 1e12, "left_out_for_time": "", "rows": []}
    for name, measure in measurements(job):
        if time.monotonic() > end and not job.small:
            found["left_out_for_time"] += f"{name}; "
            continue
        try:
            for row in measure():
                found["rows"].append(row)
                job.note("speed", found)
        except RuntimeError as error:  # of memory
            found["rows"].append({"what": name, "note": str(error).splitlines()[0][:100]})
        if not job.small:
            torch.cuda.empty_cache()
    return found


def measurements(job: Job) -> Iterator[tuple[str, Callable[[], Iterator[Row]]]]:
    """What is timed: its name, and what yields its rows."""
    yield "Inception", partial(inception, job)
    yield "Fréchet distance", partial(distance, job)
    for way in (*WAYS[3:4], *WAYS[:3], *([] if job.small else WAYS[4:])):
        for shape in SHAPES:
            yield f"{shape}, {way.name}", partial(network, job, shape, way)


def network(job: Job, shape: str, way: Way) -> Iterator[Row]:
    """A training step and a sampling step of one network, one way: two rows."""
    preset, side, batch = SHAPES[shape]
    config = SMALL if job.small else PRESETS[preset]
    side, batch = (16, 1) if job.small else (side, batch)
    layout = torch.channels_last if way.channels_last else torch.contiguous_format
    with tf32(way.tf32):
        with job.device:  # hundreds of millions of random weights take a CPU ten seconds
            model = SR3Preconditioner(config).to(memory_format=layout)  # type: ignore[call-overload]
        x = torch.randn(batch, 3, side, side, device=job.device).contiguous(memory_format=layout)
        gamma = torch.full((batch,), 0.5, device=job.device)
        flops = forward_flops(config, side)
        if way.compile:
            model.unet.compile_parts("norms")
        optimiser = torch.optim.Adam(model.parameters(), 1e-5, fused=True)

        def train() -> None:
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast(job.device.type, torch.bfloat16, enabled=way.bf16):
                sr3_loss(model, x, x, gamma, torch.randn_like(x)).mean().backward()
            optimiser.step()

        @torch.inference_mode()
        def sample() -> None:
            with torch.autocast(job.device.type, torch.bfloat16, enabled=way.bf16):
                model(x, x, gamma)

        for what, call, passes in (("training step", train, 3), ("sampling step", sample, 1)):
            reset_memory(job)
            first, seconds = timed(job, call)
            yield {
                "what": f"{shape}, {what}",
                "way": way.name,
                "batch": batch,
                "images/s": rounded(batch / seconds, 3),
                "ms": rounded(1000 * seconds, 4),
                "GiB": memory(job),
                "TFLOP/s": rounded(passes * flops * batch / seconds / 1e12, 3),
                "of peak": rounded(passes * flops * batch / seconds / PEAK, 3),
                "first call s": rounded(first, 3),
            }


def forward_flops(config: UNetConfig, side: int) -> int:
    """FLOPs of one image's forward pass."""
    with torch.device("meta"):
        model, x = SR3Preconditioner(config), torch.zeros(1, 3, side, side)
        with FlopCounterMode(display=False) as counter:
            model(x, x, torch.ones(1))
    return int(counter.get_total_flops())


def inception(job: Job) -> Iterator[Row]:
    """Features a second of the network behind FID, in float32; random weights."""
    from torchvision.models import inception_v3

    with job.device:
        module = inception_v3(num_classes=1008, aux_logits=False, init_weights=False).eval()
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = 2 if job.small else 256
    x = torch.randn(batch, 3, 299, 299, device=job.device).contiguous(memory_format=torch.channels_last)
    for allowed in (False, True):
        with tf32(allowed), torch.inference_mode():
            _, seconds = timed(job, lambda: module(x))
        way = "TF32" if allowed else "float32"
        yield {"what": "Inception v3 features", "way": way, "batch": batch, "images/s": rounded(batch / seconds, 4)}


def distance(job: Job) -> Iterator[Row]:
    """The Fréchet distance of 2048 dimensions, which is computed on the CPU."""
    d = 64 if job.small else 2048
    rows = np.random.default_rng(0).standard_normal((2, 4 * d, d))
    moments = [(r.mean(0), np.cov(r.T)) for r in rows]
    began = time.perf_counter()
    frechet_distance(*moments[0], *moments[1])
    yield {
        "what": f"Fréchet distance, {d} dimensions",
        "way": "CPU",
        "ms": rounded(1e3 * (time.perf_counter() - began)),
    }


def timed(job: Job, call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the first call, and of a later one (median)."""
    times: list[float] = []
    wanted = 0.05 if job.small else ENOUGH
    while len(times) < 3 or sum(times[2:]) < wanted:
        began = time.perf_counter()
        call()
        if not job.small:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
        if len(times) == 2 and times[1] > wanted:
            break
    return times[0], float(np.median(times[2:] or times[1:]))


def reset_memory(job: Job) -> None:
    if not job.small:
        torch.cuda.reset_peak_memory_stats()


def memory(job: Job) -> float | str:
    return "" if job.small else rounded(torch.cuda.max_memory_allocated() / 2**30, 3)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 convolutions and matrix products may round their factors to TF32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
