"""The mean over flips and turns, against a loop in NumPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sr3eval.errors import UserError
from sr3eval.images import round_to_8bit
from sr3eval.method import Facts, Method, Upscaled
from sr3eval.methods._self_ensemble import SelfEnsemble, self_ensemble
from sr3eval.methods.reference import build as reference


class Lopsided(Method):
    """A convolution with random taps, to 2x; it sees no image as it would see the image's mirror."""

    name, fingerprint, scale, facts = "lopsided", "lopsided", 2, Facts(architecture="one layer")

    def __init__(self, quantize="official"):
        self.quantize = quantize
        self.taps = torch.rand(12, 3, 3, 3, generator=torch.Generator().manual_seed(0)) / 27

    def upscale(self, lr, seeds, progress=None):
        sr = F.pixel_shuffle(F.conv2d(lr, self.taps, padding=1), 2).clamp(0, 1)
        if progress:
            progress(0.5)
            progress(1.0)
        return Upscaled(round_to_8bit(sr) if self.quantize == "official" else sr, [{"seed": seed} for seed in seeds])


@pytest.fixture
def lr():
    return torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(1))


def by_hand(lr):
    total = 0
    for flips in ((), (2,), (3,), (2, 3)):
        for axes in ((0, 1, 2, 3), (0, 1, 3, 2)):
            seen = np.ascontiguousarray(np.transpose(np.flip(lr.numpy(), flips), axes))
            made = Lopsided("none").upscale(torch.from_numpy(seen), [0, 0]).images.numpy()
            total = total + np.flip(np.transpose(made, axes), flips)
    return torch.from_numpy(total / 8)


def test_is_the_mean_over_four_flips_and_their_transposes(lr):
    sr = SelfEnsemble(Lopsided("none"), rounded=False).upscale(lr, [0, 0]).images
    torch.testing.assert_close(sr, by_hand(lr), atol=1e-6, rtol=0)
    assert (sr - Lopsided("none").upscale(lr, [0, 0]).images).abs().max() > 0.05


def test_floats_are_averaged_and_rounded_afterwards(lr):
    assert torch.equal(self_ensemble(Lopsided).upscale(lr, [0, 0]).images, round_to_8bit(by_hand(lr)))
    assert not torch.equal(
        SelfEnsemble(Lopsided(), rounded=True).upscale(lr, [0, 0]).images, round_to_8bit(by_hand(lr))
    )
    floats = self_ensemble(Lopsided, quantize="none").upscale(lr, [0, 0]).images
    torch.testing.assert_close(floats, by_hand(lr), atol=1e-6, rtol=0)


def test_an_image_turned_gives_its_output_turned(lr):
    method = SelfEnsemble(Lopsided("none"), rounded=False)
    expected = method.upscale(lr, [0, 0]).images.rot90(1, (2, 3)).flip(2)
    torch.testing.assert_close(method.upscale(lr.rot90(1, (2, 3)).flip(2), [0, 0]).images, expected, atol=1e-6, rtol=0)


def test_stands_for_the_method_that_it_wraps(lr):
    method, told = self_ensemble(Lopsided), []
    assert (method.name, method.scale, method.facts.architecture) == ("lopsided", 2, "one layer")
    assert isinstance(method.inner, Lopsided)
    assert method.upscale(lr, [3, 4], told.append).notes == [{"seed": 3}, {"seed": 4}]
    assert told == pytest.approx([step / 16 for step in range(1, 17)])
    fingerprints = {m.fingerprint for m in (Lopsided(), method, self_ensemble(Lopsided, quantize="none"))}
    assert len(fingerprints) == 3


def test_outputs_that_exist_already_are_refused():
    with pytest.raises(UserError, match="reference only has finished outputs"):
        SelfEnsemble(reference(), rounded=True)
