"""Write openai.npz, what openai's code makes of small networks and losses: python FILE CHECKOUTS, no part of the tests.

CHECKOUTS: a folder with guided_diffusion/ of github.com/openai/guided-diffusion at 22e0df8 and improved_diffusion/ of
github.com/openai/improved-diffusion at 1bc7bbb. The arrays:

    guided/, improved/keys, shapes      of the state dict of the released network, full size
    guided/, improved/output            of a reduced network (`REDUCED`) for `image`, `TIMES` and `LABELS`
    loss/mse, loss/vb                   training_losses of 4000 cosine steps of `fake_model`'s output
    linear/loss                         training_losses of 1000 linear steps
    chain/learned, chain/fixed          p_sample_loop of `RESPACED` steps of these, with clipped estimates
    ddim                                ddim_sample_loop, eta = 0.5, likewise
    kept/T_STEPS                        space_timesteps(T, [STEPS])

Weights, inputs and noise are not stored: `drawn` makes them from their names.
"""

import sys
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

SHAPE = (2, 3, 16, 16)
LABELS = [3, 0]
TIMES = [0, 700]
LOSS_TIMES = [0, 0, 1, 40, 2000, 3999]
RESPACED = 7
KEPT = ((1000, 250), (4000, 250), (1000, 7), (4000, 33), (1000, 1000), (10, 4))
GUIDED = {"num_head_channels": 32, "resblock_updown": True, "use_new_attention_order": True}
IMPROVED = {"num_heads": 4}
REDUCED = {"model_channels": 32, "num_res_blocks": 2, "channel_mult": (1, 2, 3), "num_classes": 5}
RELEASED = {"model_channels": 192, "num_res_blocks": 3, "channel_mult": (1, 2, 3, 4), "num_classes": 1000}
ATTENTION = {"guided": (2, 4, 8), "improved": (4, 8)}


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 1) seeded by a name, in float32; RandomState's stream is frozen."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of the state dict: scaled to keep variances; vectors are near 1 (norms) or 0 (biases)."""
    if len(shape) > 1:
        return drawn(key, shape) / np.float32(np.sqrt(np.prod(shape[1:])))
    return drawn(key, shape) * np.float32(0.1) + np.float32(key.endswith("weight"))


def image() -> Tensor:
    return torch.from_numpy(drawn("image", SHAPE))


def eight_bit() -> Tensor:
    """Images in [-1, 1] on the 8-bit grid, black and white pixels among them."""
    levels = np.clip(np.round(127.5 + 90 * drawn("eight bit", (len(LOSS_TIMES), *SHAPE[1:]))), 0, 255)
    return torch.from_numpy(levels.astype(np.float32) / np.float32(127.5) - 1)


def loss_noise() -> Tensor:
    return torch.from_numpy(drawn("loss noise", tuple(eight_bit().shape)))


def loss_output() -> Tensor:
    """Of a model for `eight_bit`: the noise, nearly, and v."""
    noise = loss_noise()
    return torch.cat([0.9 * noise + 0.1 * noise.roll(1, -1), torch.from_numpy(0.5 * drawn("v", tuple(noise.shape)))], 1)


def noise(step: int) -> Tensor:
    """The noise that starts a chain (0) and that of its later steps."""
    return torch.from_numpy(drawn(f"noise {step}", SHAPE))


def denoiser(y: Tensor, gamma: Tensor) -> Tensor:
    """Any smooth function as a model of y and its level: [N, 6, H, W].

    It takes eps for less than y even at the highest level, where y_0 would else be a difference of float32's last bits.
    """
    g = gamma[:, None, None, None].float()
    eps = 0.7 * (y - g.sqrt() * 0.4 * y.roll(2, -1).tanh())
    return torch.cat([eps, (2 * y.roll(1, -2) + g).sin()], dim=1)


def network(module, kind: str, sizes: dict):
    options = GUIDED | {"image_size": 64} if kind == "guided" else IMPROVED
    return module.UNetModel(
        in_channels=3,
        out_channels=6,
        attention_resolutions=ATTENTION[kind],
        dropout=0.1,
        use_scale_shift_norm=True,
        **sizes,
        **(options | ({"num_head_channels": 64} if kind == "guided" and sizes is RELEASED else {})),
    )


def of_network(module, kind: str) -> dict[str, np.ndarray]:
    with torch.device("meta"):
        released = {key: tuple(value.shape) for key, value in network(module, kind, RELEASED).state_dict().items()}
    small = network(module, kind, REDUCED).eval()
    small.load_state_dict({k: torch.from_numpy(weight(k, tuple(v.shape))) for k, v in small.state_dict().items()})
    with torch.no_grad():
        output = small(image(), torch.tensor(TIMES), torch.tensor(LABELS))
    return {
        f"{kind}/keys": np.array(list(released)),
        f"{kind}/shapes": np.array([",".join(map(str, shape)) for shape in released.values()]),
        f"{kind}/output": output.numpy(),
    }


def diffusion(schedule: str, steps: int, learned: bool, respaced: int | None = None):
    from improved_diffusion import gaussian_diffusion as gd
    from improved_diffusion.respace import SpacedDiffusion, space_timesteps

    return SpacedDiffusion(
        use_timesteps=space_timesteps(steps, [respaced or steps]),
        betas=gd.get_named_beta_schedule(schedule, steps),
        model_mean_type=gd.ModelMeanType.EPSILON,
        model_var_type=gd.ModelVarType.LEARNED_RANGE if learned else gd.ModelVarType.FIXED_SMALL,
        loss_type=gd.LossType.RESCALED_MSE if learned else gd.LossType.MSE,
    )


def losses() -> dict[str, np.ndarray]:
    t, y0, output = torch.tensor(LOSS_TIMES), eight_bit(), loss_output()
    terms = diffusion("cosine", 4000, True).training_losses(lambda *_: output, y0, t, noise=loss_noise())
    linear = diffusion("linear", 1000, False)
    simple = linear.training_losses(lambda *_: output[:, :3], y0, t % 1000, noise=loss_noise())
    return {
        "loss/mse": terms["mse"].numpy(),
        "loss/vb": terms["vb"].numpy(),
        "loss/noisy": linear.q_sample(y0, t % 1000, loss_noise()).numpy(),
        "linear/loss": simple["loss"].numpy(),
    }


def chains() -> dict[str, np.ndarray]:
    def chain(schedule: str, steps: int, learned: bool, ddim: bool = False) -> np.ndarray:
        whole = diffusion(schedule, steps, learned)
        gammas, count = torch.from_numpy(whole.alphas_cumprod), iter(range(1, RESPACED + 1))

        def model(y: Tensor, t: Tensor) -> Tensor:
            return denoiser(y, gammas[t])[:, : 6 if learned else 3]

        sampler = diffusion(schedule, steps, learned, RESPACED)
        with mock.patch("torch.randn_like", side_effect=lambda _: noise(next(count))):
            if ddim:
                return sampler.ddim_sample_loop(model, SHAPE, noise=noise(0), eta=0.5, device="cpu").numpy()
            return sampler.p_sample_loop(model, SHAPE, noise=noise(0), device="cpu").numpy()

    return {
        "chain/learned": chain("cosine", 4000, True),
        "chain/fixed": chain("linear", 1000, False),
        "ddim": chain("linear", 1000, True, ddim=True),
    }


def main(checkouts: str) -> None:
    sys.path.insert(0, checkouts)
    import guided_diffusion.unet
    import improved_diffusion.unet
    from improved_diffusion.respace import space_timesteps

    found = of_network(guided_diffusion.unet, "guided") | of_network(improved_diffusion.unet, "improved")
    found |= losses() | chains()
    found |= {f"kept/{t}_{steps}": np.array(sorted(space_timesteps(t, [steps]))) for t, steps in KEPT}
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **found)


if __name__ == "__main__":
    main(sys.argv[1])
