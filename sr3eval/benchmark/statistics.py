"""Feature statistics of a folder of images, for Fréchet distances to a fixed set: ImageNet's training images, say."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sr3eval import tasks
from sr3eval.benchmark.processes import rounds
from sr3eval.benchmark.progress import Count, Tell, silent
from sr3eval.data import Folder, chunks, large_enough
from sr3eval.distributed import job
from sr3eval.errors import UserError, number
from sr3eval.features.moments import Moments
from sr3eval.features.networks import Network, Resize, efficientnet_lite0, inception
from sr3eval.features.statistics import Source, load_sums, save_statistics, save_sums
from sr3eval.files import held_file
from sr3eval.folders import find_images

NetworkName = Literal["inception", "efficientnet_lite0"]
SAVE_EVERY = 4096  # images between two savings of the state


def load_network(name: NetworkName, resize: Resize, weights: str | None) -> Network:
    """The network of `fid` (inception) or of `fd_efficientnet_lite0`."""
    return inception(weights, resize) if name == "inception" else efficientnet_lite0()


def statistics(images: Path, task_name: str, network: Network, out: Path, batch_size: int, tell: Tell = silent) -> None:
    """Write the statistics of all images below a folder, prepared as the HR targets of a task, to the .npz `out`.

    The state is saved to OUT.partial now and then: the same call goes on, and gives the same bytes. The processes of a
    job share the images, and the leading one adds up, in the images' order, what all see in them. Raises UserError
    where `out` exists, cannot be written or is being written, and for a state of other images or of another network.
    """
    with job().lead_in(held_file(out)):
        _write(images, task_name, network, out, batch_size, tell)


def _write(images: Path, task_name: str, network: Network, out: Path, batch_size: int, tell: Tell) -> None:
    folder, source, done = job().lead(lambda: _begin(images, task_name, network, out))
    partial = out.with_name(f"{out.name}.partial")
    moments = load_sums(partial, source) if done and job().leads else Moments()
    ids, count = sorted(folder.paths), Count("statistics", source.n, tell)
    count.done = done

    def load_batch(part: Sequence[str]) -> Tensor:
        return torch.stack([folder.hr(image_id) for image_id in part])

    for stretch in chunks(ids[done:], SAVE_EVERY):
        for pooled in rounds(list(chunks(stretch, batch_size)), load_batch, network.pooled):
            if job().leads:
                moments.add([], pooled)
            count.advance(len(pooled))
        if job().leads:
            save_sums(partial, moments, source)
    if job().leads:
        save_statistics(out, moments, source)
        partial.unlink(missing_ok=True)


def _begin(images: Path, task_name: str, network: Network, out: Path) -> tuple[Folder, Source, int]:
    """The images, what the statistics are of, and how many images are in the saved state."""
    if out.suffix != ".npz" or out.exists():
        raise UserError(f"{out}: " + ("exists; give another name" if out.exists() else "name it *.npz"))
    task = tasks.get(task_name)
    paths, too_small = large_enough(find_images(images), task.smallest)
    if len(paths) < 2:
        raise UserError(
            f"{images}: {number(len(paths), 'image')}; at least 2 are needed ({len(too_small)} are too small)"
        )
    files = hashlib.sha256("\n".join(sorted(paths)).encode()).hexdigest()
    source = Source(network.identity, f"{images.name} as {task.name}", len(paths), files)
    partial = out.with_name(f"{out.name}.partial")
    return Folder(paths, task), source, load_sums(partial, source).n if partial.exists() else 0
