"""A running study of made-up pictures, for the scripts here that measure the server or break it."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from flask import Flask
from PIL import Image

from study_app.pack import Pair, encode, same_length
from study_app.spec import Matchup, Spec

Picture = Callable[[np.random.Generator, int], Image.Image]


def noise(rng: np.random.Generator, side: int) -> Image.Image:
    """The hardest to compress and to decode."""
    return Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))


def grainy(rng: np.random.Generator, side: int) -> Image.Image:
    """As hard to compress as a photograph: some 2 bytes a pixel."""
    coarse = noise(rng, side // 8).resize((side, side), Image.Resampling.BICUBIC)
    smooth = np.asarray(coarse, dtype=np.int16)
    return Image.fromarray((smooth + rng.integers(-8, 9, smooth.shape)).clip(0, 255).astype(np.uint8))


def open_study(app: Flask, slug: str, spec: Spec, models: Sequence[str], side: int, picture: Picture = noise) -> int:
    """Create, freeze and run; returns how many bytes each picture has."""
    pairs = list(_pairs(spec, models, side, picture))
    admin = app.extensions["study_admin"]
    admin.create(slug, spec, models, pairs)
    admin.freeze(slug)
    admin.move(slug, "run")
    return len(pairs[0].real)


def _pairs(spec: Spec, models: Sequence[str], side: int, picture: Picture) -> Iterator[Pair]:
    rng, shown = np.random.default_rng(0), spec.matchups(models)
    for kind, count, matchups in (("test", spec.images, shown), ("catch", spec.catch, [Matchup("")])):
        for number, matchup in itertools.product(range(count), matchups):
            files = same_length(encode(picture(rng, side)) for _ in range(spec.side_by_side))
            middle = files[2] if spec.task == 1 else None
            of = (f"{kind}{number}", kind, number, matchup.model, side, side)
            yield Pair(*of, *files[:2], middle, rival=matchup.rival)
