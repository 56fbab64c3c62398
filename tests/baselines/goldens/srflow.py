"""Write srflow.npz, what SRFlow's code makes of reduced networks: python FILE CHECKOUT, no part of the tests.

CHECKOUT: github.com/andreas128/SRFlow at 5a007ad. The arrays, for two of its configs ("4X", "8X") at smaller widths:

    keys, shapes  of the state dict that its save_network writes
    sr            of the images of `low_resolution`, each padded, drawn by get_sr after manual_seed, and cropped as in
                  test.py, before clamping
    png           sr, as test.py writes it
    noise_0, ...  the noise of `high_resolution`, given the first image, by get_encode_z without noise added; its order
                  is that in which decoding draws it

Weights and images are not stored: `drawn` makes them from their names. `official` serves benchmarks too.
"""

import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from torch import Tensor

CONFIGS = {"4X": "SRFlow_DF2K_4X", "8X": "SRFlow_CelebA_8X"}
FEATURES, GROWTH, HIDDEN, STEPS = 8, 4, 8, 2
LR = (2, 3, 5, 4)  # N, 3, h, w
SEEDS, HEAT = (0, 7), 0.9  # of the images
LAST = (".fAffine.4", ".fFeatures.4", ".conv")  # convolutions that give (shift, gain) or (mean, log-scale)


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 1) seeded by a name, in float32; RandomState's stream is frozen."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)


def weight(key: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A tensor of the state dict, such that decoding stays finite and most pixels are in [0, 1].

    Decoding divides by the couplings' gains in every step, so these are kept near 1; each RRDB multiplies its input by
    about 1.2, so the first convolution is weak.
    """
    values, (layer, name) = drawn(f"{key} {seed}", shape), key.rsplit(".", 1)
    if layer == "flowUpsamplerNet.layers.1.actnorm":  # the last one of decoding
        return 0.1 * values + np.float32({"logs": 2.0, "bias": -0.5}[name])
    if name == "weight" and layer.endswith("invconv"):
        return np.eye(*shape, dtype=np.float32) + 0.1 * values / np.float32(np.sqrt(shape[1]))
    if name == "weight":
        gain = 0.1 if layer.endswith(LAST) or layer == "RRDB.conv_first" else 1
        return values * np.float32(gain / np.sqrt(np.prod(shape[1:])))
    is_gain = np.arange(shape[0]) % 2 == 1
    return 0.1 * values + np.float32(3) * (is_gain if name == "bias" and layer.endswith(LAST[:2]) else 0)


def state(name: str, seed: int = 0) -> dict[str, Tensor]:
    """A state dict for a reduced network, "4X" or "8X", from the keys and shapes in srflow.npz."""
    with np.load(Path(__file__).with_suffix(".npz")) as goldens:
        keys, shapes = goldens[f"{name}_keys"].tolist(), goldens[f"{name}_shapes"].tolist()
    sized = {key: tuple(map(int, shape.split())) for key, shape in zip(keys, shapes, strict=True)}
    return {key: torch.from_numpy(weight(key, shape, seed)) for key, shape in sized.items()}


def low_resolution() -> np.ndarray:
    """LR in uint8, an odd height."""
    return np.clip(127 + 60 * drawn("lr", LR), 0, 255).astype(np.uint8)


def high_resolution(scale: int) -> Tensor:
    """What to encode given the first LR, padded to even sides: [1, 3, H, W] in [0, 1]."""
    height, width = (scale * (side + side % 2) for side in LR[2:])
    return torch.from_numpy(0.5 + 0.2 * drawn(f"hr {scale}", (1, 3, height, width))).clamp(0, 1)


def official(checkout: str, config: str, reduced: bool) -> SimpleNamespace:
    """test.py's functions, and as `model` an SRFlowModel with the untrained network of a config."""
    code = Path(checkout) / "code"
    sys.path.insert(0, str(code))
    absent = {name: mock.MagicMock() for name in ("natsort", "cv2", "Measure", "imresize")}  # imported, not needed here
    sys.modules.update(absent)
    import test as script  # the checkout's
    from models.modules.SRFlowNet_arch import SRFlowNet
    from models.SRFlow_model import SRFlowModel

    for name in absent:
        del sys.modules[name]
    sys.path.remove(str(code))
    options = script.option.parse(str(code / "confs" / f"{config}.yml"), is_train=False)
    net = options["network_G"]
    if reduced:
        net["nf"], net["flow"]["K"] = FEATURES, STEPS
        net["flow"]["CondAffineSeparatedAndCond"] = {"hidden_channels": HIDDEN}
    options, growth = script.option.dict_to_nonedict(options), GROWTH if reduced else 32
    network = SRFlowNet(3, 3, net["nf"], net["nb"], growth, options["scale"], net["flow"]["K"], options)
    if reduced:
        narrow(network)
    model = SRFlowModel.__new__(SRFlowModel)
    model.opt, model.netG = options, torch.nn.DataParallel(network.eval())
    return SimpleNamespace(**vars(script), model=model)


def narrow(network: torch.nn.Module) -> None:
    """The couplings' networks anew for a condition of this width: the release fixes it at 320 channels."""
    for step in network.flowUpsamplerNet.layers:
        if hasattr(step, "affine"):
            part, condition = step.affine, 5 * FEATURES
            kept, moved, sizes = part.channels_for_nn, part.channels_for_co, {"hidden_channels": HIDDEN}
            part.fAffine = part.F(in_channels=kept + condition, out_channels=2 * moved, **sizes)
            part.fFeatures = part.F(in_channels=condition, out_channels=2 * part.in_channels, **sizes)


def golden(checkout: str, name: str) -> dict[str, np.ndarray]:
    """The arrays of one network, computed by the checkout."""
    code = official(checkout, CONFIGS[name], reduced=True)
    network, scale = code.model.netG.module, code.model.opt["scale"]
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    network.load_state_dict({key: torch.from_numpy(weight(key, shape)) for key, shape in shapes.items()})
    height, width = LR[2:]
    padded = [
        code.t(code.impad(image.transpose(1, 2, 0), bottom=height % 2, right=width % 2)) for image in low_resolution()
    ]
    sr = []
    for lr, seed in zip(padded, SEEDS, strict=True):
        torch.manual_seed(seed)
        sr.append(code.model.get_sr(lq=lr, heat=HEAT))
    png = np.stack([code.rgb(torch.clamp(image, 0, 1)).transpose(2, 0, 1) for image in sr])
    noise = code.model.get_encode_z(padded[0], high_resolution(scale), epses=[], add_gt_noise=False)
    crop = (..., slice(height * scale), slice(width * scale))
    return {
        "keys": np.array(list(shapes)),
        "shapes": np.array([" ".join(map(str, shape)) for shape in shapes.values()]),
        "sr": torch.cat(sr).numpy()[crop],
        "png": png[crop],
    } | {f"noise_{i}": part.numpy() for i, part in enumerate(noise[::-1])}


if __name__ == "__main__":
    arrays = {f"{name}_{key}": value for name in CONFIGS for key, value in golden(sys.argv[1], name).items()}
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **arrays)
