"""Stand-ins for weights that cannot be downloaded: the real architectures with random numbers."""

import functools
import os
import shutil

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from sr3eval import device, weights
from sr3eval.features import networks
from sr3eval.metrics import dists, lpips, ntire_2025_score
from tests.processes import Jobs


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With REQUIRE_ALL set, a skipped test is a failed one: continuous integration installs what tests need."""
    report = yield
    if report.skipped and os.environ.get("REQUIRE_ALL"):
        report.outcome, report.longrepr = "failed", f"{item.nodeid}: skipped ({report.longrepr[2]}), with REQUIRE_ALL"
    return report


def randomised(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A state dict whose features differ between images: scaled for ReLU, with batch statistics that matter."""
    generator = torch.Generator().manual_seed(0)
    state = module.state_dict()
    for name, tensor in state.items():
        if tensor.ndim > 1:
            fan_in = tensor[0].numel()
            state[name] = torch.randn(tensor.shape, generator=generator) * (2 / fan_in) ** 0.5
        elif tensor.is_floating_point():
            low = 0.5 if name.endswith(("running_var", ".weight")) else -0.1
            state[name] = low + torch.rand(tensor.shape, generator=generator) * (1 if low > 0 else 0.2)
    return state


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory):
    """A folder of files named as the published ones, for SR3EVAL_WEIGHTS."""
    folder = tmp_path_factory.mktemp("weights")
    make = torchvision.models
    builders = {
        networks.INCEPTION: lambda: make.inception_v3(num_classes=1008, aux_logits=False, init_weights=False),
        networks.RESNET50: make.resnet50,
        lpips.BACKBONES["alex"]: lambda: nn.ModuleDict({"features": make.alexnet().features}),
        lpips.BACKBONES["vgg"]: lambda: nn.ModuleDict({"features": make.vgg.make_layers(make.vgg.cfgs["D"])}),
    }
    for release, build in builders.items():
        torch.save(randomised(build()), folder / release.file)
    return folder


@pytest.fixture
def offline(random_weights, monkeypatch):
    """Random weights in place of the published ones."""
    monkeypatch.setenv(weights.FOLDER, str(random_weights))
    return random_weights


@pytest.fixture
def forgotten_networks():
    """Networks are loaded once a process: forget them before, and what these tests loaded after."""
    caches = (networks.inception, networks.resnet50, networks.efficientnet_lite0, lpips.network)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture(scope="module")
def one_thread():
    """Small tensors: on a busy machine, waiting for a second thread takes longer than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def jobs(tmp_path_factory):
    """Starts commands in processes of their own, one or several."""
    found = Jobs(tmp_path_factory.mktemp("jobs"))
    yield found
    for started in found.started:
        started.end()


@pytest.fixture(scope="module")
def chromium():
    """A browser for a module's pages."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engine:
        # Else no page, simulated or not, may show this machine's in a frame.
        options = ["--no-sandbox", "--disable-features=LocalNetworkAccessChecks"]
        browser = engine.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()


@functools.cache
def projection(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)) / rows**0.5


@pytest.fixture
def quick_networks(offline, one_thread, monkeypatch):
    """Random weights, and in place of each network's layers two random projections of 8x8 of its pixels.

    In place of a score's parts, metrics that are as high or low for equal images.
    """

    def look(network, images):
        x = F.interpolate(network.prepare(images), (8, 8)).flatten(1)
        pooled = (x @ projection(x.shape[1], network.dimensions)).relu()
        return networks.Features(pooled, pooled @ projection(network.dimensions, 1000))

    def layers(network, images):
        yield images
        for channels in dists.CHANNELS[1:]:
            yield torch.einsum("nchw,ck->nkhw", F.interpolate(images, (8, 8)), projection(3, channels)).relu()

    monkeypatch.setattr(networks.Network, "look", look)
    monkeypatch.setattr(dists.Dists, "layers", layers)
    quick = (("lpips", {}), ("lpips", {}), ("ssim", {}), ("ssim", {}), ("ssim", {}), ("lpips", {}))
    monkeypatch.setattr(ntire_2025_score, "PARTS", quick)
    monkeypatch.setattr(device, "ALL_THREADS", 1)  # a forked process cannot use its parent's other threads


@pytest.fixture(params=[False, True], ids=["float32", "tf32"])
def tf32(request):
    """Whether a GPU's float32 convolutions and matrix products may round their factors to 11 bits."""
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = request.param
    yield request.param
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed
