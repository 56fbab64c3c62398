"""Inception Score (Salimans et al. 2016)."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sr3eval.features.moments import Array
from sr3eval.features.networks import INCEPTION, Resize, inception
from sr3eval.folders import stable_hash
from sr3eval.metrics import Convention, SetMetric, leave_one_out

RELEASES = (INCEPTION,)

SPLITS = 10


class ClassSums:
    """By split: how many images, the sum of their class probabilities, and of p log p."""

    def __init__(self) -> None:
        self.counts = np.zeros(SPLITS)
        self.p: Array = np.zeros((SPLITS, 1))
        self.p_log_p = np.zeros(SPLITS)

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    def add(self, ids: Sequence[str], features: Tensor) -> None:
        """Add class scores [N, classes]; an image's split follows from its id."""
        log_p = features.double().log_softmax(dim=1)
        p = log_p.exp()
        splits = np.array([stable_hash("split", image_id) % SPLITS for image_id in ids])
        member = np.eye(SPLITS)[splits].T  # [SPLITS, N]
        self.counts += member.sum(axis=1)
        self.p = self.p + member @ p.numpy()
        self.p_log_p += member @ (p * log_p).sum(dim=1).numpy()

    def __add__(self, other: "ClassSums") -> "ClassSums":
        both = ClassSums()
        both.counts, both.p, both.p_log_p = self.counts + other.counts, self.p + other.p, self.p_log_p + other.p_log_p
        return both


def inception_score(sums: ClassSums) -> float:
    """exp(mean KL(p(class | image) || p(class))) in each split that has images, and the mean of those."""
    has = sums.counts > 0
    n = sums.counts[has]
    marginal = sums.p[has] / n[:, None]  # p(class)
    # The mean over images of sum_c p(c | image) log(p(c | image) / p(c)) needs only the sums of p and of p log p.
    log_marginal = np.log(marginal, where=marginal > 0, out=np.zeros_like(marginal))
    return float(np.exp(sums.p_log_p[has] / n - (marginal * log_marginal).sum(axis=1)).mean())


def build(*, resize: Resize = "tf1", weights: str | None = None) -> SetMetric:
    """Inception Score of the outputs.

    Args:
        resize, weights: see `networks.inception`.
    """
    network = inception(weights, resize)
    settings = f"{network.identity}; 1008 classes without bias, {SPLITS} splits by hash of the image id"
    convention = Convention(name="is", label="IS", higher_is_better=True, settings=settings, decimals=2, needs_hr=False)
    evaluate = leave_one_out(lambda own, _: inception_score(own), minimum=SPLITS)
    return SetMetric(convention, network.logits, ClassSums, evaluate, minimum=SPLITS)
