"""Training of SR3 and Regression, as an iterator that yields one event a step and can be stopped anywhere.

Everything random is a function of (seed, step): example number, crop, noise level, noise, dropout. The saved state is
therefore weights, EMA, Adam's moments and the step, and N + M steps equal N, kill, M bit for bit.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from sr3eval import config as configs
from sr3eval import tasks
from sr3eval.data import stable_hash
from sr3eval.diffusion import checkpoint, stream
from sr3eval.diffusion.device import default_device, training_dtype
from sr3eval.diffusion.ema import EMA
from sr3eval.diffusion.log import TrainingLog
from sr3eval.diffusion.loss import regression_loss, sr3_loss
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.diffusion.unet import UNet
from sr3eval.diffusion.validation import Validation
from sr3eval.errors import UserError
from sr3eval.files import atomic_write, claim_folder
from sr3eval.images import bicubic_up, from_uint8, to_signed

STATE_FILE = "state.safetensors"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.toml"
# Losses of SR3 are logged by noise level: bin i holds sqrt(gamma) in [i / GAMMA_BINS, (i + 1) / GAMMA_BINS).
GAMMA_BINS = 10


@dataclass(frozen=True)
class Event:
    """One finished step of a run. `logged` holds the line written to metrics.jsonl at this step, if any."""

    step: int
    steps: int
    loss: float
    logged: dict[str, Any] | None = None


class Trainer:
    """The state of a run - network, EMA, Adam, step, best validation PSNR - and what changes it."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.task = tasks.get(config.task)
        torch.manual_seed(stable_hash(config.seed, "weights"))
        self.network = UNet(config.network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.forward = torch.compile(self.network) if config.optimiser.compile else self.network
        self.ema = EMA(self.network, config.optimiser.ema_decay)
        self.optimiser = torch.optim.Adam(self.network.parameters(), config.optimiser.learning_rate, fused=True)
        self.schedule = config.schedule.build()
        self.dtype = training_dtype(config.optimiser.precision, device)
        self.step, self.best_psnr = 0, -math.inf

    def train_step(self, hr: Tensor) -> tuple[float, Tensor, Tensor]:
        """One optimiser step on uint8 HR images [N, 3, S, S]: mean loss, and per-example gammas [N] and losses [N]."""
        self.step += 1
        torch.manual_seed(stable_hash(self.config.seed, "step", self.step))
        optimiser = self.config.optimiser
        for group in self.optimiser.param_groups:
            group["lr"] = optimiser.rate(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        gammas, losses = [], []
        for part in hr.chunk(optimiser.accumulate):
            gamma, loss = self._losses(part)
            (loss.mean() / optimiser.accumulate).backward()
            gammas.append(gamma)
            losses.append(loss.detach())
        if optimiser.gradient_clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), optimiser.gradient_clip)
        self.optimiser.step()
        self.ema.update(self.network, self.step)
        loss = torch.cat(losses)
        mean = float(loss.mean())
        if not math.isfinite(mean):
            raise UserError(f"step {self.step}: the loss is {mean}; lower optimiser.learning_rate and start again")
        return mean, torch.cat(gammas), loss.cpu()

    def _losses(self, hr: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the noise for one part of a batch; gammas [N] on the CPU (NaN for Regression) and losses [N]."""
        y0 = from_uint8(hr.to(self.device))
        x = to_signed(bicubic_up(self.task.degrade(y0), (y0.shape[-2], y0.shape[-1])))
        y0 = to_signed(y0)
        x, y0 = (t.contiguous(memory_format=torch.channels_last) for t in (x, y0))
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            if self.config.model == "regression":
                return torch.full((len(hr),), math.nan), regression_loss(self.forward, x, y0, self.config.p)
            gamma = self.schedule.sample_gamma(len(hr))
            loss = sr3_loss(self.forward, x, y0, gamma.to(self.device), torch.randn_like(y0), self.config.p)
            return gamma, loss

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on, atomically."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.state_dict().items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": tensor for name, tensor in moments.items()}
        metadata = {"step": str(self.step), "best_psnr": repr(self.best_psnr)}
        content = safetensors.torch.save({n: t.cpu().contiguous() for n, t in tensors.items()}, metadata)
        atomic_write(path, content)

    def restore(self, path: Path) -> None:
        """Continue from what `save` wrote."""
        content, metadata = checkpoint.read(path)
        tensors = safetensors.torch.load(content)

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        self.network.load_state_dict(part("network."))
        self.ema.load_state_dict(part("ema."))
        count = len(list(self.network.parameters()))
        moments = {index: part(f"adam.{index}.") for index in range(count)}
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments if self.step_of(metadata) else {}, "param_groups": groups})
        self.step, self.best_psnr = self.step_of(metadata), float(metadata["best_psnr"])

    @staticmethod
    def step_of(metadata: dict[str, str]) -> int:
        return int(metadata["step"])

    def averaged(self) -> UNet:
        """A copy of the network with the EMA weights, in eval mode."""
        network = UNet(self.config.network).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.load_state_dict(self.ema.state_dict())
        return network.eval()


def train(config: TrainConfig, out: Path, device: torch.device | None = None) -> Iterator[Event]:
    """Run, or go on with, the training of `config` in the folder `out`; one Event a step.

    Writes config.toml, state.safetensors (to go on from), model.safetensors (EMA weights: the last ones for SR3, those
    of the best validation PSNR for Regression), metrics.jsonl, tensorboard/ and samples/. Stopping the iterator saves
    the state. Raises UserError when `out` holds another run.
    """
    claim_folder(out, CONFIG_FILE, configs.to_toml(config))
    task = tasks.get(config.task)
    folder, validation_folder, _ = stream.open_folders(config.data, task)
    trainer = Trainer(config, device or default_device())
    if (out / STATE_FILE).exists():
        trainer.restore(out / STATE_FILE)
    data = config.data
    images = stream.TrainingImages(folder, config.seed, data.crop, data.zoom_out, data.flip)
    validation = Validation(config, task, stream.validation_images(validation_folder, data))
    log = TrainingLog(out, trainer.step)
    optimiser = config.optimiser
    source = stream.batches(images, trainer.step, optimiser.steps, optimiser.batch_size, data.workers)
    losses: list[tuple[Tensor, Tensor]] = []
    try:
        for hr in source:
            loss, *per_example = trainer.train_step(hr)
            losses.append((per_example[0], per_example[1]))
            line: dict[str, Any] | None = None
            if trainer.step % config.log.every == 0 or trainer.step == optimiser.steps:
                line = {"step": trainer.step, "rate": optimiser.rate(trainer.step), **summary(losses)}
                losses = []
            if trainer.step % config.log.validate_every == 0 or trainer.step == optimiser.steps:
                line = (line or {"step": trainer.step}) | validate(trainer, validation, out)
            if line is not None:
                log.write(line)
            if trainer.step % config.log.save_every == 0 or trainer.step == optimiser.steps:
                trainer.save(out / STATE_FILE)
            yield Event(trainer.step, optimiser.steps, loss, line)
    finally:
        if trainer.step % config.log.save_every:
            trainer.save(out / STATE_FILE)
        log.close()


def summary(losses: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Mean loss, and for SR3 the mean loss of every noise-level bin that occurred."""
    gamma, loss = (torch.cat(part) for part in zip(*losses, strict=True))
    line = {"loss": float(loss.mean())}
    bins = (gamma.sqrt() * GAMMA_BINS).nan_to_num(nan=-1).floor().clamp(max=GAMMA_BINS - 1).int()
    for i in range(GAMMA_BINS):
        if bool((bins == i).any()):
            line[f"loss_sqrt_gamma_{i / GAMMA_BINS:.1f}"] = float(loss[bins == i].mean())
    return line


def validate(trainer: Trainer, validation: Validation, out: Path) -> dict[str, float]:
    """Score the EMA weights, write the sample sheet and, where it is due, the checkpoint."""
    network = trainer.averaged()
    scores, sheet = validation.run(network, trainer.device)
    atomic_write(out / "samples" / f"step_{trainer.step:07d}.png", sheet)
    if trainer.config.model == "sr3" or scores["psnr"] > trainer.best_psnr:
        weights = network.state_dict()
        checkpoint.save(out / WEIGHTS_FILE, configs.to_dict(trainer.config), trainer.step, weights)
    trainer.best_psnr = max(trainer.best_psnr, scores["psnr"])
    return scores


def read_log(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
