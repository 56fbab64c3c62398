"""Training of SR3 and Regression, as an iterator that yields one event a step and can be stopped anywhere.

Everything random is a function of (seed, step): example number, crop, noise level, noise, dropout. The saved state is
therefore weights, EMA, Adam's moments and the step, and N + M steps equal N, kill, M bit for bit.
"""

import json
import math
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from sr3eval import config as configs
from sr3eval import tasks
from sr3eval.config import resolve_path
from sr3eval.data import stable_hash
from sr3eval.device import Graphed, check_compiler, default_device, training_dtype
from sr3eval.diffusion import checkpoint, stream
from sr3eval.diffusion.ema import EMA
from sr3eval.diffusion.log import TrainingLog
from sr3eval.diffusion.loss import output_weight, regression_loss, sr3_loss
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.diffusion.unet import UNet
from sr3eval.diffusion.validation import Validation
from sr3eval.errors import UserError
from sr3eval.files import atomic_write, claim_folder
from sr3eval.images import bicubic_up, from_uint8, to_signed

STATE_FILE = "state.safetensors"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.toml"
PROGRESS_KEY = "progress"
# Losses of SR3 are logged by noise level: bin i holds sqrt(gamma) in [i / GAMMA_BINS, (i + 1) / GAMMA_BINS).
GAMMA_BINS = 10


@dataclass(frozen=True)
class Event:
    """One finished step of a run. `logged` holds the line written to metrics.jsonl at this step, if any."""

    step: int
    steps: int
    logged: dict[str, Any] | None = None


@dataclass(frozen=True)
class Progress:
    """What a saved state says of itself. data: digest of the images; sha256: of the tensors (`tensors_digest`)."""

    step: int
    best_psnr: float
    data: str
    sha256: str


class Trainer:
    """The state of a run - network, EMA, Adam, step, best validation PSNR - and what changes it."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.task = tasks.get(config.task)
        torch.manual_seed(stable_hash(config.seed, "weights"))
        self.network = UNet(config.network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.start is not None:
            started = checkpoint.load(config.start, config.model)
            checkpoint.check_shapes(started.weights, self.network, resolve_path(config.start))
            self.network.load_state_dict(started.weights)
        self.forward = torch.compile(self.network) if config.optimiser.compile is True else self.network
        if not isinstance(config.optimiser.compile, bool):
            self.network.compile_parts(config.optimiser.compile)
        self.ema = EMA(self.network, config.optimiser.ema_decay)
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), config.optimiser.learning_rate, betas=(0.9, config.optimiser.beta2), fused=True
        )
        self.levels = config.training_levels or config.schedule.build()
        self.dtype = training_dtype(config.optimiser.precision, device)
        self.step, self.best_psnr = 0, -math.inf
        self.unlogged: list[Tensor] = []  # noise level and loss of every example since the last line of the log: [2, N]
        self.gradients: Callable[..., Tensor] = self._gradients

    def train_step(self, hr: Tensor) -> None:
        """One optimiser step on uint8 HR images [N, 3, S, S]. Nothing waits for a GPU: `losses` and `save` do."""
        self.step += 1
        torch.manual_seed(stable_hash(self.config.seed, "step", self.step))
        optimiser = self.config.optimiser
        for group in self.optimiser.param_groups:
            group["lr"] = optimiser.rate(self.step)
        sr3 = self.config.model == "sr3"
        gamma = self.levels.sample_gamma(len(hr)).float() if sr3 else torch.zeros(len(hr))
        inputs = [hr.to(self.device), gamma.to(self.device)]
        if sr3:
            inputs.append(torch.randn(hr.shape, device=self.device))
        if optimiser.cuda_graph and not isinstance(self.gradients, Graphed):
            self.gradients = Graphed(self._gradients, inputs)
        losses = self.gradients(*inputs)
        if optimiser.gradient_clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), optimiser.gradient_clip)
        self.optimiser.step()
        self.ema.update(self.network, self.step)
        self.unlogged.append(torch.stack([inputs[1], losses]))

    def _gradients(self, hr: Tensor, gamma: Tensor, noise: Tensor | None = None) -> Tensor:
        """Leave the gradients of a batch in the network; returns its losses [N]."""
        self.optimiser.zero_grad(set_to_none=True)
        parts = self.config.optimiser.accumulate
        chunks = [t.chunk(parts) for t in (hr, gamma, noise) if t is not None]
        losses = []
        for part in zip(*chunks, strict=True):
            loss = self._losses(*part)
            (loss.mean() / parts).backward()
            losses.append(loss.detach())
        return torch.cat(losses)

    def _losses(self, hr: Tensor, gamma: Tensor, noise: Tensor | None = None) -> Tensor:
        """Losses [N] of uint8 HR images with these noise levels and this noise; Regression has none."""
        y0 = from_uint8(hr)
        x = to_signed(bicubic_up(self.task.degrade(y0), (y0.shape[-2], y0.shape[-1])))
        y0 = to_signed(y0)
        x, y0 = (t.contiguous(memory_format=torch.channels_last) for t in (x, y0))
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            if noise is None:
                return regression_loss(self.forward, x, y0, self.config.p)
            loss = sr3_loss(self.forward, x, y0, gamma, noise, self.config.p)
            if self.config.weighting == "output":
                loss = loss * output_weight(gamma, self.config.network.residual_scale) ** self.config.p
            return loss

    def _finite(self) -> Tensor:
        """What is unlogged, [2, examples] on the CPU; UserError names the first step whose loss is not finite."""
        unlogged = torch.cat([torch.empty(2, 0), *(part.cpu() for part in self.unlogged)], dim=1)
        if not bool(unlogged.isfinite().all()):
            first = int((~unlogged[1].isfinite()).nonzero()[0])
            step = self.step - (unlogged.shape[1] - 1 - first) // self.config.optimiser.batch_size
            loss = float(unlogged[1, first])
            raise UserError(f"step {step}: the loss is {loss}; lower optimiser.learning_rate and start again")
        return unlogged

    def save(self, path: Path, data: str) -> None:
        """Write everything that the next step depends on, atomically. data: digest of the images."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.state_dict().items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": tensor for name, tensor in moments.items()}
        tensors["unlogged"] = self._finite()
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        progress = Progress(self.step, self.best_psnr, data, checkpoint.tensors_digest(tensors))
        content = safetensors.torch.save(tensors, {PROGRESS_KEY: json.dumps(asdict(progress))})
        atomic_write(path, content, durable=True)

    def restore(self, path: Path, data: str) -> None:
        """Continue from what `save` wrote.

        Raises UserError for another file, a damaged one, the state of another network, and images that are not those
        that training began with.
        """
        content, metadata = checkpoint.read(path)
        progress = _progress(metadata, path)
        tensors = safetensors.torch.load(content)
        if checkpoint.tensors_digest(tensors) != progress.sha256:
            raise UserError(f"{path}: damaged: its tensors are not those that were saved; start in another folder")
        if data != progress.data:
            raise UserError(
                f"{path}: the training or validation images have changed since step {progress.step}; put them back, or "
                "start in another folder, with start = the model.safetensors of this one"
            )

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        checkpoint.check_shapes(part("network."), self.network, path)
        self.network.load_state_dict(part("network."))
        self.ema.load_state_dict(part("ema."))
        moments = {}
        for index, parameter in enumerate(self.network.parameters()):
            moments[index] = part(f"adam.{index}.")
            for name in ("exp_avg", "exp_avg_sq"):  # fused Adam walks memory: moments need the weights' layout
                moments[index][name] = torch.empty_like(parameter).copy_(moments[index][name])
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self.unlogged = [tensors["unlogged"]]
        self.step, self.best_psnr = progress.step, progress.best_psnr

    def losses(self) -> dict[str, float]:
        """Mean loss since the last call, and for SR3 the mean of every noise-level bin that occurred."""
        gamma, loss = self._finite()
        self.unlogged = []
        line = {"loss": float(loss.mean())}
        if self.config.model == "sr3":
            bins = (gamma.sqrt() * GAMMA_BINS).clamp(max=GAMMA_BINS - 1).int()
            for i in bins.unique().tolist():
                line[f"loss_sqrt_gamma_{i / GAMMA_BINS:.1f}"] = float(loss[bins == i].mean())
        return line

    def averaged(self) -> UNet:
        """A copy of the network with the EMA weights, in eval mode."""
        network = UNet(self.config.network).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.load_state_dict(self.ema.state_dict())
        return network.eval()


def _progress(metadata: dict[str, str], path: Path) -> Progress:
    try:
        return Progress(**json.loads(metadata[PROGRESS_KEY]))
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{path}: not a state that `sr3eval train` saved, or one of another version") from None


def claim(out: Path, config: TrainConfig) -> None:
    """Make `out` the folder of this run, or find that it is: steps, workers and what is logged may be others."""
    path, text = out / CONFIG_FILE, configs.to_toml(config)
    if path.exists() and path.read_text(encoding="utf-8") != text and _same_run(path, config):
        atomic_write(path, text.encode())
    claim_folder(out, CONFIG_FILE, text)


def _same_run(path: Path, config: TrainConfig) -> bool:
    try:
        before = configs.from_dict(TrainConfig, configs.read_toml(path))
    except UserError:  # of another version
        return False
    return before.fixed() == config.fixed()


def train(config: TrainConfig, out: Path, device: torch.device | None = None) -> Generator[Event, None, None]:
    """Run or resume the training of `config` in the folder `out`; one Event a step.

    A run resumes bit for bit; its steps, workers and what is logged may change, so that a finished one can be extended.
    Writes config.toml, state.safetensors (to go on from), model.safetensors (EMA weights: the last ones for SR3, those
    of the best validation PSNR for Regression), metrics.jsonl, tensorboard/ and samples/. Closing the iterator saves
    the state, so that nothing is lost; a kill loses the steps since the last save. Raises UserError when `out` holds
    another run, an image cannot be read, or the loss is no longer finite.
    """
    config, device = config.resolved(), device or default_device()
    task, data, optimiser = tasks.get(config.task), config.data, config.optimiser
    if optimiser.compile:
        check_compiler(device)
    if optimiser.cuda_graph and device.type != "cuda":
        raise UserError("optimiser.cuda_graph: there is no GPU here; --set optimiser.cuda_graph=false")
    folder, validation_folder, too_small, validation_too_small = stream.open_folders(data, task)
    validation = Validation(config, task, stream.validation_images(validation_folder, data))
    digest = stream.digest(folder, validation_folder)
    claim(out, config)
    trainer = Trainer(config, device)
    if (out / STATE_FILE).exists():
        trainer.restore(out / STATE_FILE, digest)
    if trainer.step > optimiser.steps:
        raise UserError(
            f"{out}: is trained to step {trainer.step}; optimiser.steps = {optimiser.steps} lies before that"
        )
    log = TrainingLog(out, trainer.step)
    if trainer.step == 0:
        left_out = {"left_out_too_small": len(too_small), "validation_left_out_too_small": len(validation_too_small)}
        log.write({"step": 0, "training_images": len(folder), **left_out})
    source = stream.source(folder, config, device, trainer.step)
    try:
        for hr in source:
            trainer.train_step(hr)
            line: dict[str, Any] | None = None
            if trainer.step % config.log.every == 0 or trainer.step == optimiser.steps:
                line = {"step": trainer.step, "rate": optimiser.rate(trainer.step), **trainer.losses()}
            if trainer.step % config.log.validate_every == 0 or trainer.step == optimiser.steps:
                line = (line or {"step": trainer.step}) | validate(trainer, validation, out)
            if line is not None:
                log.write(line)
            if trainer.step % config.log.save_every == 0 or trainer.step == optimiser.steps:
                trainer.save(out / STATE_FILE, digest)
            yield Event(trainer.step, optimiser.steps, line)
    except GeneratorExit:
        trainer.save(out / STATE_FILE, digest)  # stopped at a yield, between two steps
        raise
    finally:
        log.close()


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
