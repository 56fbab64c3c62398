"""What a batch refuses before any metric sees it."""

import math

import pytest
import torch

from sr3eval.errors import UserError
from sr3eval.metrics import Batch

IDS = ["a", "b"]
LR, HR, SR = torch.full((2, 3, 4, 4), 0.5), torch.full((2, 3, 16, 16), 0.5), torch.full((2, 3, 16, 16), 0.4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Batch(["a", "a"], SR, HR, LR), "image a scored twice"),
        (lambda: Batch(IDS, SR, HR, LR, labels=[1]), "1 labels"),
        (lambda: Batch(IDS, SR, HR, LR, blocks=["x"]), "1 blocks"),
        (lambda: Batch(IDS, SR, HR * 255, LR), "a: the HR image has values in"),
        (lambda: Batch(IDS, SR - 0.5, HR, LR), "a: the output has values in"),
        (lambda: Batch(IDS, SR, HR * math.nan, LR), "a: the HR image has NaN"),
        (lambda: Batch(IDS, SR, HR, LR[:, :1]), "expected"),
        (lambda: Batch(IDS, SR[..., 1:], HR, LR), "expected"),
        (lambda: Batch(IDS[:1], SR, HR, LR), "expected"),
        (lambda: Batch(IDS, SR[0]), "2 images: sr .3, 16, 16.; expected"),
        (lambda: Batch(IDS, SR - 0.5), "a: the output has values in"),
        (lambda: Batch(IDS, SR, samples=SR[None]), r"samples .1, 2, 3, 16, 16. of sr .* expected .K, \*sr., K >= 2"),
        (lambda: Batch(IDS, SR, samples=torch.stack([SR, SR])[..., 1:]), "expected"),
        (lambda: Batch(IDS, SR, samples=torch.stack([SR, SR * math.nan])), "a: the sample has NaN"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(UserError, match=message):
        make()
