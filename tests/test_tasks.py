"""Tasks that a config describes: framing, kernels, degradations, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from sr3eval import matlab
from sr3eval.degradation import Blur, Jpeg, Resize
from sr3eval.errors import UserError
from sr3eval.images import bicubic_down, from_uint8, to_uint8
from sr3eval.tasks import TASKS, Task


def picture(height, width, seed=0):
    levels = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed))
    return levels.float() / 255


def test_whole_images_are_cut_at_the_right_and_the_bottom():
    image = picture(50, 61)
    hr = Task("x4", 4).prepare(image)
    assert torch.equal(hr, image[:, :48, :60])
    assert Task("x4", 4).target((50, 61)) == (48, 60) and Task("x3", 3).target((50, 61)) == (48, 60)


def test_kernels_are_those_of_their_programs():
    hr = picture(36, 48)
    size = (9, 12)
    pillow = Image.fromarray(to_uint8(hr).permute(1, 2, 0).numpy()).resize((12, 9), Image.Resampling.BICUBIC)
    assert torch.equal(to_uint8(Task("t", 4, lr="pillow").degrade(hr)).permute(1, 2, 0), torch.tensor(np.array(pillow)))
    assert torch.equal(Task("t", 4, lr="matlab").degrade(hr), from_uint8(matlab.imresize(to_uint8(hr[None]), size))[0])
    exact = bicubic_down(hr[None], size)[0].clamp(0, 1)
    assert (Task("t", 4).degrade(hr) - exact).abs().max() <= 0.5 / 255 + 1e-6
    made = [Task("t", 4, lr=lr).degrade(hr) for lr in ("bicubic", "matlab", "pillow")]
    assert not torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_degradations_are_the_images_own():
    task = Task("t", 4, degradation=(Blur(sigma=(0.5, 3.0)), Resize(kernel="bicubic"), Jpeg(quality=50)))
    hr = torch.stack([picture(32, 32, seed) for seed in range(2)])
    assert torch.equal(task.degrade(hr[0], seed=5), task.degrade(hr, seed=5)[0])
    assert not torch.equal(task.degrade(hr[0], seed=5), task.degrade(hr[0], seed=6))
    assert torch.equal(task.degrade(hr[0], 5), from_uint8(to_uint8(task.degrade(hr[0], 5))))
    assert task.inputs == "Gaussian blur sigma 0.5 to 3, then bicubic, then JPEG 50"


def test_what_made_the_inputs_is_in_the_fingerprint():
    tasks = [
        Task("t", 4),
        Task("t", 2),
        Task("t", 4, "square 64"),
        Task("t", 4, lr="matlab"),
        Task("t", 4, degradation=(Resize(),)),
        Task("t", 4, degradation=(Resize(), Jpeg(quality=30))),
    ]
    assert len({task.fingerprint for task in tasks}) == len(tasks)
    assert Task("other name", 4, dataset="of other images").fingerprint == tasks[0].fingerprint


def test_the_papers_tasks_are_the_squares_they_were():
    sizes = {name: (task.lr_size, task.hr_size, task.scale, task.smallest) for name, task in TASKS.items()}
    assert sizes == {
        "faces_16_128": (16, 128, 8, 128),
        "faces_64_256": (64, 256, 4, 256),
        "faces_64_512": (64, 512, 8, 512),
        "faces_256_1024": (256, 1024, 4, 1024),
        "imagenet_16_128": (16, 128, 8, 128),
        "imagenet_64_256": (64, 256, 4, 256),
        "imagenet_56_224": (56, 224, 4, 256),
        "photos_16_64": (16, 64, 4, 64),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"framing": "half"}, 'task.framing: "half" is neither "whole" nor "square SIDE"'),
        ({"framing": "square 66"}, "66 pixels are not a multiple of the scale 4"),
        ({"framing": "square 64 of 32"}, "no square of 64 pixels fits into one of 32"),
        ({"scale": 0}, "task.scale: 0 is below 1"),
        ({"framing": "square 64", "lr": "files"}, 'needs framing = "whole"'),
        ({"lr": "matlab", "degradation": (Resize(),)}, 'the step of kind "resize" names the kernel'),
    ],
)
def test_bad_tasks_say_what_to_do(options, message):
    with pytest.raises(UserError) as caught:
        Task("t", **{"scale": 4} | options)
    assert message in str(caught.value)


def test_whole_images_have_no_size_in_common():
    with pytest.raises(UserError, match="takes whole images, which have no size in common"):
        _ = Task("x4", 4).hr_size
    with pytest.raises(UserError, match="the short side is below 4 pixels"):
        Task("x4", 4).prepare(picture(3, 9))
