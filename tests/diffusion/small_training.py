"""A training run from plain settings, stopped where a test wants it."""

import torch

from sr3eval.config import from_dict
from sr3eval.diffusion.train import train
from sr3eval.diffusion.train_config import TrainConfig

CPU = torch.device("cpu")


def run(settings, out, stop_after=None):
    events = train(from_dict(TrainConfig, settings), out, CPU)
    for event in events:
        if event.step == stop_after:
            events.close()
            break


def same(a, b):
    """Whether two state dicts hold the same tensors."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
