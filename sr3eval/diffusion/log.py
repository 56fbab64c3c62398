"""The log of a training run: metrics.jsonl, TensorBoard and curves.html, cut back to the step it resumes from."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sr3eval.diffusion import curves
from sr3eval.distributed import ALONE, Job
from sr3eval.errors import UserError
from sr3eval.files import atomic_write

# Losses of SR3 are logged by noise level: bin i holds sqrt(gamma) in [i / GAMMA_BINS, (i + 1) / GAMMA_BINS).
GAMMA_BINS = 10


class NotFiniteError(UserError):
    """The loss or the gradient of a step is infinite or not a number."""


class Unlogged:
    """What steps measured since the last line of the log; it stays on the device until it is asked for.

    batch_size: of all processes together. overflows: whether a gradient that is not finite is no error, since its step
    was skipped.
    """

    def __init__(self, batch_size: int, overflows: bool, here: Job = ALONE) -> None:
        self.batch_size, self.overflows, self.here = batch_size, overflows, here
        self.steps: list[Tensor] = []  # gamma and loss of own examples, and their step's gradient norm: [3, N] each

    def add(self, gamma: Tensor, losses: Tensor, norm: Tensor) -> None:
        """Note a step: gamma [N], losses [N], gradient norm []."""
        self.steps.append(torch.stack([gamma, losses, norm.expand_as(losses)]))

    def tensor(self, step: int) -> Tensor:
        """All of it up to step `step`, [3, examples] on the CPU, in every process.

        Raises NotFiniteError, which names the first step that failed.
        """
        own = torch.cat([torch.empty(3, 0), *(part.cpu() for part in self.steps)], dim=1)
        found = torch.cat([self._by_step(part, self.here.count) for part in self.here.gather(own)], dim=2).flatten(1)
        bad = ~found[1].isfinite() | (~found[2].isfinite() & (not self.overflows))
        if bad.any():
            first = int(bad.nonzero()[0])
            failed = step - (found.shape[1] - 1 - first) // self.batch_size
            loss, norm = found[1:, first].tolist()
            what = f"gradient's norm is {norm}" if math.isfinite(loss) else f"loss is {loss}"
            raise NotFiniteError(f"step {failed}: the {what}")
        return found

    def restore(self, found: Tensor) -> None:
        """Continue from what `tensor` gave, in however many processes."""
        self.steps = [self.here.part(self._by_step(found).movedim(2, 0)).movedim(0, 2).flatten(1)]

    def _by_step(self, found: Tensor, processes: int = 1) -> Tensor:
        """[3, examples] as [3, steps, examples a step] of one of so many processes."""
        size = self.batch_size // processes
        return found.view(3, found.shape[1] // size, size)

    def means(self, step: int, by_level: bool) -> dict[str, float]:
        """Mean loss, that of every bin of noise levels that occurred, mean and largest gradient norm; forgets them."""
        gamma, loss, norm = self.tensor(step)
        self.steps = []
        line = {"loss": float(loss.mean())}
        if by_level:
            bins = (gamma.sqrt() * GAMMA_BINS).clamp(max=GAMMA_BINS - 1).int()
            for i in bins.unique().tolist():
                line[f"loss_sqrt_gamma_{i / GAMMA_BINS:.1f}"] = float(loss[bins == i].mean())
        taken = norm[norm.isfinite()]
        if len(taken):
            line |= {"gradient_norm": float(taken.mean()), "gradient_norm_max": float(taken.max())}
        if self.overflows:
            line["skipped_steps"] = (len(norm) - len(taken)) / self.batch_size
        return line


class TrainingLog:
    """Writes lines {"step": ..., name: number} to all three. title and facts: what the page says of the run."""

    def __init__(self, out: Path, step: int, title: str, facts: Sequence[str]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = out / "metrics.jsonl"
        kept = _complete_lines(path, step) if path.exists() else []
        if path.exists():
            atomic_write(path, "".join(kept).encode())
        self.out, self.title, self.facts = out, title, facts
        self.lines = [json.loads(line) for line in kept]
        self.file = path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def write(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        for name, value in line.items():
            if name != "step":
                self.board.add_scalar(name, value, line["step"])
        if line["step"]:
            curves.write(self.out / "curves.html", self.title, self.facts, self.lines)

    def close(self) -> None:
        self.file.close()
        self.board.close()


class NoLog:
    """The log of the processes that leave it to the first."""

    def write(self, line: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


def _complete_lines(path: Path, step: int) -> list[str]:
    """The lines up to a step: a kill may leave half a last line, and lines of steps that will be run again."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line[-1:] == "\n" and json.loads(line)["step"] <= step] if step else []
