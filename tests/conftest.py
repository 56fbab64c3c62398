"""Stand-ins for weights that cannot be downloaded: the real architectures with random numbers."""

import hashlib

import pytest
import torch
import torchvision

from sr3eval.metrics import _networks, _weights, lpips


def randomised(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A state dict whose features differ between images: scaled for ReLU, with batch statistics that are not trivial."""
    generator = torch.Generator().manual_seed(0)
    state = module.state_dict()
    for name, tensor in state.items():
        if tensor.ndim > 1:
            fan_in = tensor[0].numel()
            state[name] = torch.randn(tensor.shape, generator=generator) * (2 / fan_in) ** 0.5
        elif tensor.is_floating_point():
            low = 0.5 if name.endswith(("running_var", "bn.weight")) else -0.1
            state[name] = low + torch.rand(tensor.shape, generator=generator) * (1 if low > 0 else 0.2)
    return state


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory):
    """A folder of files named as the published ones, for SR3EVAL_WEIGHTS."""
    folder = tmp_path_factory.mktemp("weights")
    make = torchvision.models
    networks = {
        _networks.INCEPTION: lambda: make.inception_v3(num_classes=1008, aux_logits=False, init_weights=False),
        _networks.RESNET50: make.resnet50,
        lpips.BACKBONES["alex"]: make.alexnet,
    }
    for weights, build in networks.items():
        torch.save(randomised(build()), folder / weights.filename)
    return folder


@pytest.fixture
def offline(random_weights, monkeypatch):
    """Random weights in place of the published ones."""
    monkeypatch.setenv(_weights.FOLDER, str(random_weights))
    return random_weights


@pytest.fixture(scope="session")
def remembered():
    """What networks made of images that several tests give them, by content."""
    return {}


@pytest.fixture
def quick_networks(offline, remembered, monkeypatch):
    """Random weights, and no image looked at twice by the same network."""
    look = _networks.Network.__call__

    def call(self, images):
        key = self.identity, tuple(images.shape), hashlib.sha256(images.numpy().tobytes()).digest()
        if key not in remembered:
            remembered[key] = look(self, images)
        return remembered[key]

    monkeypatch.setattr(_networks.Network, "__call__", call)
