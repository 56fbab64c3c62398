"""Exponential moving average of weights."""

import torch
from torch import Tensor, nn


class EMA:
    """Averages a model's parameters. `decay` is reached by a warm-up, lest early averages be mostly initial weights."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the weights after optimiser step number `step` (from 1)."""
        decay = min(self.decay, step / (step + 9))
        current = [parameter.detach() for parameter in model.parameters()]
        torch._foreach_lerp_(list(self.shadow.values()), current, 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        return self.shadow
