"""Who sees what: plans that are balanced exactly before the first subject comes.

A plan has one slot a subject. Over the slots of a condition every image is seen equally often; within a slot the real
picture is on the left in half of the trials; and of each image's views half have it on the left (12 or 13 of 25).
"""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from study_app.spec import Spec

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
Edge = tuple[int, int]  # slot, image
Piece = tuple[int, int, int]  # 0 for slots or 1 for images, the vertex, which part of it
End = tuple[Piece, int]  # a piece and the colour of its only edge of that colour


@dataclass(frozen=True)
class Planned:
    """One trial of a slot; `number` counts the images of its kind, `model` those of the condition."""

    kind: Literal["practice", "test", "catch"]
    number: int
    model: int
    real_side: Side


def plan(spec: Spec, condition: str, models: int, salt: str) -> list[list[Planned]]:
    """The trials of every slot of one condition in the order in which they are shown.

    They depend only on the study's salt, seed and task and on the condition's label; the salt is secret, since whoever
    knows all of these knows every answer. In a within-subject study `models` share a subject's images in equal parts,
    else there is one.
    """
    seed = f"{salt}/{spec.seed}/{spec.task}/{condition}"
    rng = random.Random(f"{seed}/images")
    edges = [(slot, image) for slot, images in enumerate(deal(spec, rng)) for image in images]
    tests: dict[int, list[Planned]] = defaultdict(list)
    for model, shown in enumerate(split(edges, models, rng)):
        for side, part in zip(SIDES, split(shown, 2, rng), strict=True):
            for slot, image in part:
                tests[slot].append(Planned("test", image, model, side))
    return [_sequence(spec, tests[slot], models, random.Random(f"{seed}/{slot}")) for slot in range(spec.target)]


def deal(spec: Spec, rng: random.Random) -> Iterator[list[int]]:
    """The images of each slot: permutations of all images, dealt out in turn, none twice to a slot.

    With 50 of 100 images two slots share a permutation; `target` slots use up whole permutations.
    """
    rest: list[int] = []
    for _ in range(spec.target):
        hand, rest = rest[: spec.per_subject], rest[spec.per_subject :]
        if len(hand) < spec.per_subject:
            deck = rng.sample(range(spec.images), spec.images)
            new = [image for image in deck if image not in hand][: spec.per_subject - len(hand)]
            rest = [image for image in deck if image not in new]
            hand = hand + new
        yield hand


def split(edges: Sequence[Edge], parts: int, rng: random.Random) -> list[list[Edge]]:
    """Split the edges of a bipartite multigraph so that every vertex has equally many (±1) in each part.

    For two parts this is the Euler split. In general (de Werra 1971) each vertex is cut into pieces of at most `parts`
    edges and the pieces' graph is coloured with `parts` colours (Kőnig), by swapping along alternating paths.
    """
    edges = rng.sample(edges, len(edges))
    ends = list(zip(_pieces([a for a, _ in edges], parts, 0), _pieces([b for _, b in edges], parts, 1), strict=True))
    at: dict[End, int] = {}
    colour: dict[int, int] = {}
    for edge, (left, right) in enumerate(ends):
        free = [next(c for c in range(parts) if (piece, c) not in at) for piece in (left, right)]
        if free[0] != free[1]:
            _swap(right, free[1], free[0], ends, at, colour)
        colour[edge] = free[0]
        at[left, free[0]] = at[right, free[0]] = edge
    return [[edges[edge] for edge in range(len(edges)) if colour[edge] == c] for c in range(parts)]


def _pieces(vertices: Iterable[int], size: int, side: int) -> Iterator[Piece]:
    """Name for every edge the piece of its vertex: its first `size` edges are in piece 0, the next in piece 1 …"""
    seen: dict[int, int] = defaultdict(int)
    for vertex in vertices:
        yield side, vertex, seen[vertex] // size
        seen[vertex] += 1


def _swap(
    start: Piece, free: int, wanted: int, ends: list[tuple[Piece, Piece]], at: dict[End, int], colour: dict[int, int]
) -> None:
    """Swap two colours along the path from `start` that begins with an edge coloured `wanted`, freed there."""
    path: list[int] = []
    piece, current = start, wanted
    while (piece, current) in at:
        edge = at[piece, current]
        path.append(edge)
        piece = ends[edge][0] if ends[edge][1] == piece else ends[edge][1]
        current = free if current == wanted else wanted
    for edge in path:
        for end in ends[edge]:
            del at[end, colour[edge]]
    for edge in path:
        colour[edge] = free if colour[edge] == wanted else wanted
        for end in ends[edge]:
            at[end, colour[edge]] = edge


def _sequence(spec: Spec, tests: list[Planned], models: int, rng: random.Random) -> list[Planned]:
    """Practice first, then the tests shuffled, with a catch trial at a random place in each equal stretch of them."""
    practice = _extra("practice", spec.practice, models, rng)
    catch = _extra("catch", spec.catch, 1, rng)
    tests = rng.sample(tests, len(tests))
    bounds = [round(len(tests) * i / max(len(catch), 1)) for i in range(len(catch) + 1)]
    stretches = [tests[low:high] for low, high in itertools.pairwise(bounds)] or [tests]
    for stretch, trial in zip(stretches, catch, strict=False):
        stretch.insert(rng.randint(0, len(stretch)), trial)
    return practice + [trial for stretch in stretches for trial in stretch]


def _extra(kind: Literal["practice", "catch"], count: int, models: int, rng: random.Random) -> list[Planned]:
    """All trials of a kind in random order, sides in halves, models in turn."""
    sides = rng.sample([SIDES[i % 2] for i in range(count)], count)
    numbers = rng.sample(range(count), count)
    return [
        Planned(kind, number, i % models, side) for i, (number, side) in enumerate(zip(numbers, sides, strict=True))
    ]
