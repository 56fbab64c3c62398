"""Activation checkpointing: blocks that keep only their input for the backward pass, and run forward again there."""

import functools
from collections.abc import Collection, Iterator

from torch import nn
from torch.utils.checkpoint import checkpoint

from sr3eval.diffusion.unet import ResidualBlock, UNet


def checkpoint_activations(network: UNet, levels: Collection[int]) -> None:
    """Checkpoint every block and attention of these levels; 0 is full resolution, which holds most of the memory.

    Gradients are the same, bit for bit on the CPU; names of weights are, too.
    """
    for level, layer in layers_by_level(network):
        if level in levels:
            layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


def layers_by_level(network: UNet) -> Iterator[tuple[int, nn.Module]]:
    """Blocks and attentions, each with its level. A block that resamples counts at the higher of its resolutions."""
    level = 0
    for stage in (*network.down, network.middle, *network.up):
        resample = next((b.resample for b in stage if isinstance(b, ResidualBlock) and b.resample), None)
        level -= resample == "up"
        yield from ((level, layer) for layer in stage)
        level += resample == "down"
