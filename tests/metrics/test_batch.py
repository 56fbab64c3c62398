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
        (lambda: Batch(["a", "a"], LR, HR, SR), "image a scored twice"),
        (lambda: Batch(IDS, LR, HR, SR, labels=[1]), "1 labels"),
        (lambda: Batch(IDS, LR, HR, SR, blocks=["x"]), "1 blocks"),
        (lambda: Batch(IDS, LR, HR * 255, SR), "a: the HR image has values in"),
        (lambda: Batch(IDS, LR, HR, SR - 0.5), "a: the output has values in"),
        (lambda: Batch(IDS, LR, HR * math.nan, SR), "a: the HR image has NaN"),
        (lambda: Batch(IDS, LR[:, :1], HR, SR), "wanted"),
        (lambda: Batch(IDS, LR, HR, SR[..., 1:]), "wanted"),
        (lambda: Batch(IDS[:1], LR, HR, SR), "wanted"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(UserError, match=message):
        make()
