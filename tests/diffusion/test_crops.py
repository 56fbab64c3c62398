"""Crops of photographs held in memory."""

import pytest
import torch

from sr3eval.data import Folder
from sr3eval.diffusion.crops import Crops, zooms
from sr3eval.diffusion.train_config import TrainingDataConfig
from sr3eval.folders import find_images
from sr3eval.images import area_down, from_uint8, load, save, to_uint8
from sr3eval.tasks import TASKS

SIDE = 8


@pytest.fixture
def folder(tmp_path):
    """Two photographs whose colours are places: red the row, green the column, blue the photograph."""
    for index, (height, width) in enumerate([(20, 30), (33, 17)]):
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        save(tmp_path / f"{index}.png", torch.stack([rows, columns, torch.full_like(rows, index)]).to(torch.uint8))
    return Folder(find_images(tmp_path), TASKS["photos_16_64"])


def crops_of(folder, **options):
    return Crops(folder, TrainingDataConfig("unused", crop=SIDE, in_memory=True, **options), 0, torch.device("cpu"))


def test_crops_are_windows_of_the_photographs_everywhere(folder):
    places = set()
    for crop in crops_of(folder, flip=False).batch(0, 4000):
        top, left, photograph = (int(v) for v in crop[:, 0, 0])
        assert torch.equal(crop[0], torch.arange(top, top + SIDE)[:, None].expand(SIDE, SIDE))
        assert torch.equal(crop[1], torch.arange(left, left + SIDE)[None].expand(SIDE, SIDE))
        places.add((photograph, top, left))
    for photograph, (height, width) in enumerate([(20, 30), (33, 17)]):
        tops, lefts = ({place[i] for place in places if place[0] == photograph} for i in (1, 2))
        assert tops == set(range(height - SIDE + 1)) and lefts == set(range(width - SIDE + 1))


def test_flips_and_transposes_turn_the_window(folder):
    turned = set()
    for crop in crops_of(folder, transpose=True).batch(0, 200):
        rows, columns = crop[0].int(), crop[1].int()
        down, across = int(rows[1, 0] - rows[0, 0]), int(columns[0, 1] - columns[0, 0])
        swapped = int(rows[0, 1] - rows[0, 0]), int(columns[1, 0] - columns[0, 0])
        turned.add((down, across, *swapped))
    # (row by row, column by column, row by column, column by row): as it is, mirrored, transposed, both
    assert turned == {(1, 1, 0, 0), (1, -1, 0, 0), (0, 0, 1, 1), (0, 0, 1, -1)}


def test_gains_scale_the_channels(folder):
    plain, dimmed = (crops_of(folder, flip=False, gains=gains).batch(3, 50) for gains in ((1.0, 1.0), (0.5, 0.5)))
    assert torch.equal(dimmed, to_uint8(0.5 * from_uint8(plain)))


def test_zooms_are_area_resized_and_large_enough(folder):
    photograph = load(folder.paths["0"])
    planes = list(zooms(photograph, SIDE, 4.0))
    assert [tuple(plane.shape[-2:]) for plane in planes] == [(20, 30), (17, 25), (14, 21), (12, 18), (10, 15), (8, 13)]
    assert torch.equal(planes[4], to_uint8(area_down(photograph, (10, 15))))


def test_a_batch_is_a_function_of_seed_and_step(folder):
    crops = crops_of(folder, zoom_out=2.0)
    assert torch.equal(crops.batch(5, 16), crops_of(folder, zoom_out=2.0).batch(5, 16))
    assert not torch.equal(crops.batch(5, 16), crops.batch(6, 16))
    batches = list(crops.batches(4, 6, 16))
    assert len(batches) == 2 and torch.equal(batches[1], crops.batch(5, 16))
