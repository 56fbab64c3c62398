"""`benchmark.py explain`: conventions under which others, in NumPy and scikit-image, have scored the same pictures."""

import itertools
import random

import numpy as np
import pytest
import tomli_w
from click.testing import CliRunner
from PIL import Image, ImageFilter
from skimage import color, data, transform
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sr3eval.benchmark import conventions, run
from sr3eval.benchmark.explain import explain
from sr3eval.commands import main
from sr3eval.errors import UserError

SCALE = 3
SHRUNK = 80  # pixels in place of 256, for smaller photographs
WEIGHTS = np.array([65.481, 128.553, 24.966])
CHANNELS = {
    "Y (BT.601, 16-235)": lambda x: (x / 255 @ WEIGHTS + 16) / 255,
    "RGB": lambda x: x / 255,
    "Y (BT.601, 16-235) rounded to 8 bit": lambda x: np.round(x / 255 @ WEIGHTS + 16) / 255,
    "luma of the full range": lambda x: x / 255 @ np.array([0.299, 0.587, 0.114]),
    "luma of the full range rounded to 8 bit": lambda x: np.asarray(Image.fromarray(x).convert("L")) / 255,
    "grey by scikit-image's rgb2gray": color.rgb2gray,
    "Y (BT.601, 16-235) of BGR taken for RGB": lambda x: (x[..., ::-1] / 255 @ WEIGHTS + 16) / 255,
}
GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}


def similarity(x, y, **options):
    return structural_similarity(x, y, channel_axis=-1 if x.ndim == 3 else None, **options)


def replicated(x, y):
    pad = [(5, 5), (5, 5), (0, 0)][: x.ndim]
    _, whole = similarity(*(np.pad(image, pad, mode="edge") for image in (x, y)), full=True, **GAUSSIAN)
    return whole[5:-5, 5:-5].mean()


def shrunk(x, y):
    factor = max(1, round(min(x.shape[:2]) / SHRUNK))
    inner = [image[: image.shape[0] // factor * factor, : image.shape[1] // factor * factor] for image in (x, y)]
    return similarity(*(transform.downscale_local_mean(i, (factor, factor, 1)[: i.ndim]) for i in inner), **GAUSSIAN)


WINDOWS = {
    "Gaussian 11x11, valid area": lambda x, y: similarity(x, y, **GAUSSIAN),
    "uniform 7x7 (scikit-image's default)": lambda x, y: similarity(x, y, data_range=1.0),
    "Gaussian 11x11, whole area (MATLAB's ssim)": replicated,
    "Gaussian 11x11 of images shrunk to about 256 px (Wang's script, piq)": shrunk,
    "uniform 7x7 of data_range 2 (scikit-image's mistake with floats)": lambda x, y: similarity(x, y, data_range=2.0),
}


def mean_of_errors(pairs):
    return -10 * np.log10(np.mean([np.mean((x - y) ** 2) for x, y in pairs]))


POOLINGS = {
    "mean over images": lambda pairs: np.mean([peak_signal_noise_ratio(y, x, data_range=1.0) for x, y in pairs]),
    "of the mean square error over all images": mean_of_errors,
}


def scores(pairs, channel, border, multiple, pooling, window):
    """PSNR and SSIM of uint8 pairs as somebody else would have computed them."""
    cut = []
    for pair in pairs:
        height, width = (side - side % multiple for side in pair[0].shape[:2])
        planes = (CHANNELS[channel](np.ascontiguousarray(image[:height, :width])) for image in pair)
        cut.append(tuple(p[border : height - border, border : width - border] for p in planes))
    return POOLINGS[pooling](cut), np.mean([WINDOWS[window](x, y) for x, y in cut])


METHODS = {
    "bicubic": None,
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1.3)),
    "blocky": lambda image: image.resize([s // 2 for s in image.size]).resize(image.size, Image.Resampling.NEAREST),
    "sharp": lambda image: image.filter(ImageFilter.UnsharpMask(4, 180)),
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(conventions, "SHRUNK", SHRUNK)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four methods on three photographs whose sides no 8 divides."""
    place = tmp_path_factory.mktemp("explain")
    sides = {"astronaut": (174, 141), "chelsea": (105, 90), "coffee": (87, 111)}
    for name, (height, width) in sides.items():
        image = Image.fromarray(getattr(data, name)()[:height, :width])
        (place / "hr").mkdir(exist_ok=True)
        image.save(place / "hr" / f"{name}.png")
        for method, changed in METHODS.items():
            if changed is not None:
                (place / method).mkdir(exist_ok=True)
                changed(image).save(place / method / f"{name}.png")
    methods = [{"kind": "bicubic"}] + [
        {"name": name, "kind": "precomputed", "folder": str(place / name)} for name in METHODS if name != "bicubic"
    ]
    config = {"task": {"scale": SCALE}, "data": {"images": str(place / "hr")}, "metrics": ["psnr"], "method": methods}
    (place / "run.toml").write_text(tomli_w.dumps(config))
    run(place / "run.toml", place / "run")
    return place / "run"


def pictures(folder, method):
    files = sorted((folder / "images" / "_hr").glob("*.png"))
    return [
        tuple(np.asarray(Image.open(path)) for path in (folder / "images" / method / file.name, file)) for file in files
    ]


def printed(psnr, ssim):
    return f"psnr={psnr:.2f},ssim={ssim:.4f}"


def hidden(count):
    """Conventions, each part of them equally often."""
    borders, multiples = itertools.cycle((3, 0, 9, 6)), itertools.cycle((1, 1, 1, 8))
    parts = zip(itertools.cycle(CHANNELS), borders, multiples, itertools.cycle(POOLINGS), itertools.cycle(WINDOWS))
    return random.Random(0).sample(list(itertools.islice(parts, 560)), count)


def test_the_hidden_convention_is_found(finished):
    """Forty claims: the right one is first in 36 or more, and among the first three in all."""
    first, among = 0, 0
    for number, convention in enumerate(hidden(40)):
        method = list(METHODS)[number % 4]
        claim = printed(*scores(pictures(finished, method), *convention))
        found = [
            (one.region.channel, one.region.border, one.region.multiple, one.pooling, one.window)
            for one in explain(finished, claim, method)[:3]
            if one.fits
        ]
        first += found[:1] == [convention]
        among += convention in found
    assert (first >= 36, among) == (True, 40), (first, among)


def test_false_claims_fit_nothing(finished):
    pairs, rng = pictures(finished, "sharp"), random.Random(1)
    psnr, ssim = scores(pairs, "Y (BT.601, 16-235)", 3, 1, "mean over images", "Gaussian 11x11, valid area")
    for _ in range(10):
        claim = printed(psnr + rng.uniform(-1.5, 1.5), ssim + rng.choice((-1, 1)) * rng.uniform(0.02, 0.08))
        assert not any(one.fits for one in explain(finished, claim, "sharp")), claim


def test_another_kernel_of_the_inputs_is_found_for_bicubic(finished):
    best = explain(finished, _of_matlab(finished), "bicubic")[0]
    assert best.fits and best.region[:3] == ("matlab", "RGB", 3)


def _of_matlab(folder):
    """Bicubic of MATLAB's inputs, by the run itself."""
    place = folder.parent
    config = {"task": {"scale": SCALE, "lr": "matlab"}, "data": {"images": str(place / "hr")}, "metrics": ["psnr"]}
    run(config | {"method": [{"kind": "bicubic"}]}, place / "matlab")
    pairs = pictures(place / "matlab", "bicubic")
    psnr, ssim = scores(pairs, "RGB", 3, 1, "mean over images", "Gaussian 11x11, valid area")
    return f"psnr={psnr:.4f},ssim={ssim:.5f}"


def test_the_command(finished):
    def command(*options):
        return CliRunner().invoke(main, ["explain", str(finished), *options])

    pairs = pictures(finished, "sharp")
    claim = printed(*scores(pairs, "RGB", 0, 1, "mean over images", "Gaussian 11x11, valid area"))
    done = command("--published", claim, "--method", "sharp")
    assert done.exit_code == 0 and "1. RGB, border 0 px: " in done.output, done.output
    none = command("--published", "psnr=10.00,ssim=0.9999", "--method", "sharp")
    assert none.exit_code == 1 and "None of the conventions gives these values" in none.output
    alone = command("--published", claim.partition(",")[0], "--method", "sharp")
    assert alone.exit_code == 0 and "SSIM" not in alone.output
    assert "--method: name one of bicubic, blurred" in command("--published", claim).output
    for wrong in ("psnr=30", "lpips=0.123", "30.21"):
        with pytest.raises(UserError, match="with the digits as printed"):
            explain(finished, wrong)
