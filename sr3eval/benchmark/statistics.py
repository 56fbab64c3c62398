"""Feature statistics of a folder of images, for Fréchet distances to a fixed set: ImageNet's training images, say."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sr3eval import tasks
from sr3eval.benchmark.progress import Tell, silent
from sr3eval.benchmark.score import prefetched
from sr3eval.data import Folder, chunks, find_images, large_enough
from sr3eval.errors import UserError, number
from sr3eval.features.moments import Moments
from sr3eval.features.networks import Network, Resize, efficientnet_lite0, inception
from sr3eval.features.statistics import Source, load_sums, save_statistics, save_sums

NetworkName = Literal["inception", "efficientnet_lite0"]
SAVE_EVERY = 4096  # images between two savings of the state


def load_network(name: NetworkName, resize: Resize, weights: str | None) -> Network:
    """The network of `fid` (inception) or of `fd_efficientnet_lite0`."""
    return inception(weights, resize) if name == "inception" else efficientnet_lite0()


def statistics(images: Path, task_name: str, network: Network, out: Path, batch_size: int, tell: Tell = silent) -> None:
    """Write the statistics of all images below a folder, prepared as the HR targets of a task, to the .npz `out`.

    The state is saved to OUT.partial now and then: the same call goes on, and gives the same bytes. Raises UserError
    where `out` exists, and for a state of other images or of another network.
    """
    if out.suffix != ".npz" or out.exists():
        raise UserError(f"{out}: " + ("exists; give another name" if out.exists() else "name it *.npz"))
    task = tasks.get(task_name)
    paths, too_small = large_enough(find_images(images), task.smallest)
    if len(paths) < 2:
        raise UserError(
            f"{images}: {number(len(paths), 'image')}; at least 2 are needed ({len(too_small)} are too small)"
        )
    folder, ids = Folder(paths, task), sorted(paths)
    files = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    source = Source(network.identity, f"{images.name} as {task.name}", len(ids), files)
    partial = out.with_name(f"{out.name}.partial")
    moments = load_sums(partial, source) if partial.exists() else Moments()

    def load_batch(part: Sequence[str]) -> Tensor:
        return torch.stack([folder.hr(image_id) for image_id in part])

    for stretch in chunks(ids[moments.n :], SAVE_EVERY):
        for batch in prefetched(load_batch, list(chunks(stretch, batch_size))):
            moments.add([], network.pooled(batch))
            tell("statistics", moments.n, len(ids))
        save_sums(partial, moments, source)
    save_statistics(out, moments, source)
    partial.unlink()
