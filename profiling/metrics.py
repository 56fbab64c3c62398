"""How fast are our metrics beside other libraries', and do the numbers agree?

    pip install piq torchmetrics pytorch-fid opencv-python-headless
    pip install basicsr --no-deps --no-build-isolation
    python profiling/metrics.py --rounds 5

Other libraries are optional: a row names those that are missing. Some minutes on two quiet cores. The contenders of a
table take turns in every round, each on as many threads as it likes. Columns: median and least wall time and median
CPU time of an item; how many times ours each of them is. A target is met when both medians are, so that a library on
one core is not beaten by threads alone; folder to folder goes by wall time, what it is about.
"""

import functools
import importlib.util
import runpy
import statistics
import sys
import tempfile
import time
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np
import scipy.linalg
import skimage.data
import skimage.metrics
import torch
import torchvision
from torch import Tensor

from sr3eval import benchmark, tasks
from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.layout import HR, LR
from sr3eval.benchmark.make import make
from sr3eval.benchmark.plan import Plan, RunImage
from sr3eval.benchmark.progress import silent
from sr3eval.benchmark.score import prefetched, score
from sr3eval.data import chunks
from sr3eval.device import threads
from sr3eval.features.moments import Moments
from sr3eval.features.networks import inception
from sr3eval.images import bicubic_up, from_uint8, save, to_uint8
from sr3eval.images import load as load_image
from sr3eval.metrics import Batch, Metric, fid, load

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "retina", "stereo_motorcycle")
BATCH = 16  # what a run's config has by default
PIP_NAMES = {"cv2": "opencv-python-headless"}  # where they are not the module's
TASK = tasks.get("imagenet_64_256")
DIMENSIONS = 2048
exhaust = deque(maxlen=0).extend  # runs a generator to its end
HEADER = ("", "median ms", "least ms", "CPU ms", "per s", "x median", "x least", "x CPU", "target")


@dataclass
class Contender:
    """call() does `items` items and returns their values; a missing peer has a reason in its place."""

    name: str
    items: int
    call: Callable[[], Any] | None
    target: float | None = None  # how many times our time it must take
    most_rounds: int = 1000
    missing: str = ""
    values: Any = None
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def times(self) -> tuple[float, ...]:
        """Median and least wall time and median CPU time, seconds an item."""
        times = statistics.median(self.wall), min(self.wall), statistics.median(self.cpu)
        return tuple(seconds / self.items for seconds in times)


def peer(name: str, items: int, prepare: Callable[[], Callable[[], Any]], target: float | None = None) -> Contender:
    """The contender whose call `prepare` makes, where what it imports is installed."""
    try:
        return Contender(name, items, prepare(), target)
    except ModuleNotFoundError as error:
        package = PIP_NAMES.get(str(error.name), error.name)
        return Contender(name, items, None, missing=f"not installed: pip install {package}")


def interleaved(contenders: Sequence[Contender], rounds: int) -> None:
    """Time every contender once a round."""
    for turn in range(rounds):
        for contender in contenders:
            if contender.call is not None and turn < contender.most_rounds:
                wall, cpu = time.perf_counter(), time.process_time()
                contender.values = contender.call()
                contender.wall.append(time.perf_counter() - wall)
                contender.cpu.append(time.process_time() - cpu)


def table(
    title: str, contenders: Sequence[Contender], difference: Callable[[Any, Any], str], by_cpu: bool = True
) -> None:
    """Print the contenders; the first one is ours."""
    ours = contenders[0]
    click.echo(f"\n{title}\n{HEADER[0]:32}" + "".join(f"{name:>11}" for name in HEADER[1:]) + "  largest difference")
    for contender in contenders:
        if contender.missing:
            click.echo(f"{contender.name:32}  {contender.missing}")
            continue
        times = contender.times()
        ratios = [theirs / own for theirs, own in zip(times, ours.times(), strict=True)]
        line = f"{contender.name:32}" + "".join(f"{1000 * t:11.4g}" for t in times) + f"{1 / times[0]:11.4g}"
        if contender is not ours:
            met = min(ratios[0], ratios[2] if by_cpu else np.inf) >= (contender.target or 0)
            goal = f"{'' if met else 'not '}>= {contender.target:g}" if contender.target else ""
            line += "".join(f"{ratio:11.3g}" for ratio in ratios) + f"{goal:>11}  "
            line += difference(ours.values, contender.values)
        click.echo(line)


def photographs(n: int) -> Tensor:
    """n crops of photographs at random places, [n, 3, 256, 256] uint8."""
    pictures = [getattr(skimage.data, name)() for name in PHOTOGRAPHS]
    pictures = [picture[0] if isinstance(picture, tuple) else picture for picture in pictures]  # a stereo pair
    random, side, crops = np.random.default_rng(0), TASK.hr_size, []
    for index in range(n):
        picture = pictures[index % len(pictures)]
        top, left = (random.integers(length - side + 1) for length in picture.shape[:2])
        crops.append(picture[top : top + side, left : left + side])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()


def upscaled(hr: Tensor) -> Tensor:
    """hr made small and enlarged, uint8."""
    return to_uint8(bicubic_up(TASK.degrade(from_uint8(hr)), (TASK.hr_size, TASK.hr_size)))


def scored(batches: Iterable[Batch], metrics: Sequence[Metric] = ()) -> np.ndarray:
    """[N, 2]: PSNR and SSIM as a run gets them."""
    metrics = metrics or [load("psnr"), load("ssim")]
    with threads(1):
        for batch in batches:
            anew = replace(batch)  # a batch remembers its scores
            for metric in metrics:
                metric.update(anew)
    return np.array([list(metric.compute().per_image.values()) for metric in metrics]).T


def psnr_ssim(rounds: int) -> None:
    """PSNR and SSIM of pairs in memory."""
    hr = photographs(200)
    sr = upscaled(hr)

    def ours() -> np.ndarray:
        ids = chunks([f"{index:03d}" for index in range(len(hr))], BATCH)
        pairs = (
            (i, from_uint8(h), from_uint8(s)) for i, h, s in zip(ids, hr.split(BATCH), sr.split(BATCH), strict=True)
        )
        return scored(Batch(i, s, h) for i, h, s in pairs)

    def in_batches(score: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Callable[[], np.ndarray]:
        pairs = list(zip(sr.split(BATCH), hr.split(BATCH), strict=True))
        return lambda: torch.cat([torch.stack(score(from_uint8(s), from_uint8(h)), dim=1) for s, h in pairs]).numpy()

    def piq() -> Callable[[], np.ndarray]:
        from piq import psnr, ssim

        each = {"reduction": "none", "data_range": 1.0}
        return in_batches(lambda s, h: (psnr(s, h, **each), ssim(s, h, downsample=False, **each)))

    def torchmetrics() -> Callable[[], np.ndarray]:
        from torchmetrics.functional import image

        psnr, ssim = image.peak_signal_noise_ratio, image.structural_similarity_index_measure
        each = {"reduction": "none", "data_range": 1.0}
        return in_batches(lambda s, h: (psnr(s, h, dim=(1, 2, 3), **each), ssim(s, h, **each)))

    def one_by_one(score: Callable[[np.ndarray, np.ndarray], tuple[float, float]], n: int) -> Callable[[], np.ndarray]:
        pairs = [tuple(np.ascontiguousarray(x[i].permute(1, 2, 0)) for x in (sr, hr)) for i in range(n)]
        return lambda: np.array([score(s, h) for s, h in pairs])

    def basicsr() -> Callable[[], np.ndarray]:
        # Without running the package's __init__, which imports all of its networks and parts of old torchvisions.
        found = importlib.util.find_spec("basicsr")
        if found is None:
            raise ModuleNotFoundError(name="basicsr --no-deps --no-build-isolation")
        package = types.ModuleType("basicsr")
        package.__path__ = found.submodule_search_locations
        with mock.patch.dict(sys.modules, basicsr=package):
            from basicsr.metrics.psnr_ssim import calculate_psnr, calculate_ssim
        return one_by_one(lambda s, h: (calculate_psnr(s, h, 0), calculate_ssim(s, h, 0)), 40)

    def scikit_image() -> Callable[[], np.ndarray]:
        gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        psnr, ssim = skimage.metrics.peak_signal_noise_ratio, skimage.metrics.structural_similarity
        return one_by_one(lambda s, h: (psnr(h, s, data_range=255), ssim(h, s, channel_axis=2, **gaussian)), 40)

    contenders = [
        Contender("sr3eval", 200, ours),
        peer("piq", 200, piq, 1.5),
        peer("torchmetrics", 200, torchmetrics, 2.3),
        peer("BasicSR (numpy, cv2)", 40, basicsr, 4.5),
        peer("scikit-image (Gaussian)", 40, scikit_image),
    ]
    interleaved(contenders, rounds)

    def difference(own: np.ndarray, theirs: np.ndarray) -> str:
        decibels, similarity = np.abs(own[: len(theirs)] - theirs).max(axis=0)
        return f"PSNR {decibels:.1e} dB, SSIM {similarity:.1e}"

    table("PSNR + SSIM of 256x256 RGB uint8 pairs in memory, an image", contenders, difference)


def folder_to_folder(rounds: int) -> None:
    """PSNR and SSIM of a run's PNG files of 256x256 pixels, beside decoding alone and computing alone."""
    title = "Folder to folder, an image: three 256x256 (or 64x64) PNG read, PSNR + SSIM"
    scored_from_disk(title, {"task": TASK.name, "metrics": ["psnr", "ssim"]}, photographs(480), BATCH, rounds)


def whole_images(rounds: int) -> None:
    """The same of images of DIV2K's size, on Y within a border of 4."""
    crops = photographs(480)
    images = [
        torch.cat([torch.cat([crops[(i + 5 * r + c) % 480] for c in range(8)], 2) for r in range(6)], 1)[
            :, :1356, :2040
        ]
        for i in range(20)
    ]
    title = "Folder to folder, an image: three 2040x1356 (or 510x339) PNG read, PSNR + SSIM of Y"
    scored_from_disk(title, {"task": {"scale": 4}, "protocol": "classic"}, images, 1, rounds)


def scored_from_disk(title: str, config: dict[str, Any], images: Sequence[Tensor], batch: int, rounds: int) -> None:
    """Score a run of these images by a config, beside decoding alone and computing alone, in batches of that size."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for index, image in enumerate(images):
            save(root / "photographs" / f"{index:03d}.png", image)
        data = {"images": str(root / "photographs")}
        settings = RunConfig.parse({**config, "method": [{"kind": "bicubic"}], "batch_size": batch, "data": data})
        run = benchmark.plan(settings, root / "run", root / "cache")
        make(run, silent)
        parts, decode = list(chunks(run.images, batch)), functools.partial(decoded, run)
        batches = [decode(part) for part in parts]
        contenders = [
            Contender("sr3eval: scores of a run", len(run.images), lambda: scored_anew(run)),
            Contender("decoding alone", len(run.images), lambda: exhaust(prefetched(decode, parts))),
            Contender("computing alone", len(run.images), lambda: scored(batches, run.metrics())),
        ]
        interleaved(contenders, rounds)
    max(contenders[1:], key=lambda part: part.times()[0]).target = 0.85
    table(title, contenders, lambda *_: "", by_cpu=False)


def decoded(run: Plan, images: Sequence[RunImage]) -> Batch:
    """What a run reads to score images."""
    sr, hr, lr = (
        torch.stack([load_image(run.folder.image(folder, image.image_id)) for image in images])
        for folder in ("bicubic", HR, LR)
    )
    return Batch([image.image_id for image in images], sr, hr, lr)


def scored_anew(run: Plan) -> None:
    """Score a run as if it had not been."""
    run.folder.scored.unlink(missing_ok=True)
    score(run, silent)


def features(n: int, decay: float, seed: int) -> Moments:
    """Moments of n rows whose covariance has eigenvalues k^-decay, in directions that depend on the seed a little."""
    random = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((DIMENSIONS, DIMENSIONS)))
    rows = random.standard_normal((n, DIMENSIONS)) * np.arange(1, DIMENSIONS + 1) ** (-decay / 2)
    moments = Moments()
    moments.add([], torch.from_numpy((rows + 0.3 * np.roll(rows, seed, axis=1)) @ basis + 0.01 * seed))
    return moments


def root_of_product(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """The Fréchet distance of pytorch-fid, clean-fid, pyiqa and BasicSR: scipy's square root of a matrix."""
    root = scipy.linalg.sqrtm(sigma1 @ sigma2)
    return float((mu1 - mu2) @ (mu1 - mu2) + np.trace(sigma1) + np.trace(sigma2) - 2 * np.trace(root).real)


def frechet(rounds: int) -> None:
    """The Fréchet distance of given statistics, and its behaviour at the edges."""

    def torch_fidelity(first: tuple, second: tuple) -> Callable[[], float]:
        from torch_fidelity.metric_fid import fid_statistics_to_metric

        stats = [{"mu": mu, "sigma": sigma} for mu, sigma in (first, second)]
        return lambda: fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]

    def contest(title: str, own: Callable[[], float], both: tuple, target: float, root: float | None = None) -> None:
        contenders = [
            Contender("sr3eval", 1, own),
            peer("torch-fidelity (eigvals)", 1, lambda: torch_fidelity(*both), target),
        ]
        if root is not None:
            sqrtm = functools.partial(root_of_product, *both[0], *both[1])
            contenders.append(Contender("scipy sqrtm", 1, sqrtm, root, most_rounds=1))
        interleaved(contenders, rounds)
        title = f"Fréchet distance, d = {DIMENSIONS}, {title}"
        table(title, contenders, lambda own, theirs: f"{abs(own - theirs):.1e} of {own:.6g}")

    first, second = (features(5000, 1.5 + 0.1 * seed, seed) for seed in (1, 2))
    full = first.statistics(), second.statistics()
    contest("N = 5000, from (mu, sigma)", lambda: fid.frechet_distance(*full[0], *full[1]), full, 2.3, 15)
    first, second = (features(1000, 1.5 + 0.1 * seed, seed) for seed in (1, 2))
    few = first.statistics(), second.statistics()
    contest("N = 1000, from (mu, sigma)", lambda: fid.frechet_distance(*few[0], *few[1]), few, 4)
    contest("N = 1000, from features", lambda: fid.distance(first, second), few, 4)

    zero = np.zeros(DIMENSIONS), np.zeros((DIMENSIONS, DIMENSIONS))
    statistics_of = {"N = 5000": full[0], "N = 1000": few[0], "all zero": zero}
    found = {name: fid.frechet_distance(*given, *given) for name, given in statistics_of.items()}
    found["N = 1000, from features"] = fid.distance(first, first)
    click.echo("Of a distribution to itself (must be real, above -1e-6): ", nl=False)
    click.echo("; ".join(f"{name}: {value:.1e}" for name, value in found.items()))


def inception_features(rounds: int) -> None:
    """Pooled features of the 2015 Inception with random weights."""
    images = photographs(32)
    randomised = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "conftest.py"))["randomised"]
    state = randomised(torchvision.models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False))

    def torch_fidelity(path: Path) -> Callable[[], np.ndarray]:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))
        return lambda: network(images)[0].numpy()

    def torchmetrics(path: Path) -> Callable[[], np.ndarray]:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network = NoTrainInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))
        return lambda: network(images).numpy()

    def pytorch_fid(path: Path) -> Callable[[], np.ndarray]:
        from pytorch_fid import inception as module

        with mock.patch.object(module, "load_state_dict_from_url", return_value=torch.load(path)):
            network = module.InceptionV3().eval()
        return lambda: network(from_uint8(images))[0].flatten(1).numpy()

    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "weights.pth"
        torch.save(state, path)
        contenders = [
            Contender("sr3eval", 32, lambda: inception(str(path)).pooled(from_uint8(images)).numpy()),
            peer("torch-fidelity", 32, lambda: torch_fidelity(path), 1.5),
            peer("pytorch-fid (its own resize)", 32, lambda: pytorch_fid(path)),
            peer("torchmetrics (its own resize)", 32, lambda: torchmetrics(path)),
        ]
        with torch.inference_mode():
            interleaved(contenders, rounds)

    def difference(own: np.ndarray, theirs: np.ndarray) -> str:
        return f"{(np.linalg.norm(own - theirs, axis=1) / np.linalg.norm(theirs, axis=1)).max():.1e} relative"

    table("Inception features, 256x256 images in a batch of 32, an image", contenders, difference)


SECTIONS = {
    "pairs": psnr_ssim,
    "folder": folder_to_folder,
    "whole": whole_images,
    "frechet": frechet,
    "inception": inception_features,
}


@click.command()
@click.option("--rounds", default=5, show_default=True, help="How often every contender is timed.")
@click.option("--section", "chosen", multiple=True, type=click.Choice(list(SECTIONS)), help="Only these tables.")
def main(rounds: int, chosen: tuple[str, ...]) -> None:
    """Print the tables."""
    warnings.filterwarnings("ignore")
    click.echo(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds")
    for name in chosen or SECTIONS:
        SECTIONS[name](rounds)


if __name__ == "__main__":
    main()
