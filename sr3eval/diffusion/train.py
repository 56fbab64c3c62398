"""Training of SR3, Regression and generators, as an iterator that yields one event a step and can be stopped anywhere.

Everything random is a function of (seed, step): example number, crop, blur, noise level, noise, dropout. The saved
state is therefore weights, EMA, Adam's moments, float16's scale and the step: N + M steps equal N, kill, M bit for bit.
Processes of one job have a part of every batch each, drawn as one process would draw all of it, but for dropout, which
is a function of the process's number, too.
"""

import json
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from sr3eval import config as configs
from sr3eval.config import resolve_path
from sr3eval.data import Folder
from sr3eval.device import Graphed, check_compiler, default_device, training_dtype
from sr3eval.diffusion import checkpoint, stream
from sr3eval.diffusion.activations import checkpoint_activations
from sr3eval.diffusion.blur import draw_sigmas, gaussian_blur
from sr3eval.diffusion.ema import EMA
from sr3eval.diffusion.generator_loss import Levels, generator_loss
from sr3eval.diffusion.generator_validation import GeneratorValidation
from sr3eval.diffusion.labels import class_names
from sr3eval.diffusion.log import NoLog, NotFiniteError, TrainingLog, Unlogged
from sr3eval.diffusion.loss import regression_loss, sr3_loss
from sr3eval.diffusion.parallel import asks_for_shards, check_job, fill, spread, unsynced, whole
from sr3eval.diffusion.preconditioners import Preconditioner, output_weight, precondition
from sr3eval.diffusion.train_config import OptimiserConfig, TrainConfig
from sr3eval.diffusion.validation import Validation
from sr3eval.distributed import ALONE, Job, job
from sr3eval.errors import UserError
from sr3eval.files import atomic_write, claim_folder
from sr3eval.folders import stable_hash
from sr3eval.images import bicubic_up, from_uint8, to_signed

STATE_FILE = "state.safetensors"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.toml"
CHECKPOINTS = "checkpoints"
PROGRESS_KEY = "progress"
Scorer = Validation | GeneratorValidation
NAMES = {"sr3": "SR3", "regression": "Regression", "ddpm": "DDPM", "improved_ddpm": "Improved DDPM"}


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
    """The state of a run - network, EMA, Adam, step, best validation PSNR - and what changes it.

    `model` is what is trained; `network`, its U-Net, has the weights. `here` is this process of the job; all of them
    call the methods in the same order.
    """

    def __init__(self, config: TrainConfig, device: torch.device, here: Job = ALONE) -> None:
        self.config, self.device, self.here = config, device, here
        self.task = config.target
        torch.manual_seed(stable_hash(config.seed, "weights"))
        self.model = self._untrained()
        self.network = self.model.unet
        if config.start is not None:
            started = checkpoint.load(config.start, config.model)
            checkpoint.check_shapes(started.weights, self.network, resolve_path(config.start))
            self.network.load_state_dict(started.weights)
        checkpoint_activations(self.network, config.optimiser.checkpoint_activations)
        if not isinstance(config.optimiser.compile, bool):
            self.network.compile_parts(config.optimiser.compile)
        self.forward: Callable[..., Tensor] = spread(self.model, config.optimiser.sharding, here)
        if config.optimiser.compile is True:
            self.forward = torch.compile(self.forward)
        self.ema = EMA(self.network, config.optimiser.ema_decay)
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), config.optimiser.learning_rate, betas=(0.9, config.optimiser.beta2), fused=True
        )
        self.schedule = config.schedule.build()
        self.levels = config.training_levels or self.schedule
        self.tables = Levels.of(self.schedule, device)
        self.dtype = training_dtype(config.optimiser.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.step, self.best_psnr = 0, -math.inf
        self.unlogged = Unlogged(config.optimiser.batch_size, self.scaler.is_enabled(), here)
        self.gradients: Callable[..., Tensor] = self._gradients

    def train_step(self, hr: Tensor, labels: Tensor | None = None) -> None:
        """One optimiser step on uint8 HR images [N, 3, S, S], with labels [N] where the model has classes.

        They are this process's part of the batch; of several processes all have as many.
        Nothing waits for a GPU: `losses`, `check`, `save` do.
        """
        self.step += 1
        torch.manual_seed(stable_hash(self.config.seed, "step", self.step))
        optimiser = self.config.optimiser
        for group in self.optimiser.param_groups:
            group["lr"] = optimiser.rate(self.step)
        gamma, inputs = self._drawn_generator(hr, labels) if self.config.generates else self._drawn(hr)
        if self.here.rank:
            torch.manual_seed(stable_hash(self.config.seed, "dropout", self.step, self.here.rank))
        if optimiser.cuda_graph and not isinstance(self.gradients, Graphed):
            self.gradients = Graphed(self._gradients, inputs)
        losses = self.gradients(*inputs)
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), optimiser.gradient_clip or math.inf)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.ema.update(self.network, self.step)
        self.unlogged.add(gamma, losses, whole(norm))

    def _drawn(self, hr: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The noise levels [N] of a step, and what `_losses` takes."""
        sr3, batch = self.config.model == "sr3", self.here.count * len(hr)
        gamma = self.levels.sample_gamma(batch).float() if sr3 else torch.zeros(batch)
        sigma = draw_sigmas(self.config.data, self.config.seed, self.step, batch)
        inputs = [hr.to(self.device), *(self.here.part(t).to(self.device) for t in (gamma, sigma))]
        if sr3:
            inputs.append(self._noise(hr))
        return inputs[1], inputs

    def _drawn_generator(self, hr: Tensor, labels: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The noise levels [N] of a step, and what `_generator_losses` takes."""
        t = self.here.part(torch.randint(len(self.schedule), (self.here.count * len(hr),))).to(self.device)
        inputs = [hr.to(self.device), t, self._noise(hr)]
        if labels is not None:
            inputs.append(labels.to(self.device))
        return self.tables.gamma[t], inputs

    def _noise(self, hr: Tensor) -> Tensor:
        """This process's part of the noise of a batch: its own alone is kept."""
        noise = torch.randn((self.here.count * len(hr), *hr.shape[1:]), device=self.device)
        return noise if self.here.count == 1 else self.here.part(noise).clone()

    def _gradients(self, *inputs: Tensor) -> Tensor:
        """Leave the gradients of a batch in the network; returns its losses [N]."""
        self.optimiser.zero_grad(set_to_none=True)
        parts = self.config.optimiser.accumulate
        objective, losses = self._generator_losses if self.config.generates else self._losses, []
        for left, part in zip(reversed(range(parts)), zip(*(t.chunk(parts) for t in inputs), strict=True), strict=True):
            with unsynced(self.forward) if left else nullcontext():
                loss = objective(*part)
                self.scaler.scale(loss.mean() / parts).backward()
            losses.append(loss.detach())
        return torch.cat(losses)

    def _losses(self, hr: Tensor, gamma: Tensor, sigma: Tensor, noise: Tensor | None = None) -> Tensor:
        """Losses [N] of uint8 HR images with these noise levels, blurs and this noise; Regression has none."""
        y0 = from_uint8(hr)
        lr = self.task.degrade(y0)
        if self.config.data.blur is not None:
            lr = gaussian_blur(lr, sigma, self.config.data.blur[1])
        x = to_signed(bicubic_up(lr, (y0.shape[-2], y0.shape[-1])))
        y0 = to_signed(y0)
        x, y0 = (t.contiguous(memory_format=torch.channels_last) for t in (x, y0))
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            if noise is None:
                return regression_loss(self.forward, x, y0, self.config.p)
            loss = sr3_loss(self.forward, x, y0, gamma, noise, self.config.p)
            if self.config.weighting == "output":
                loss = loss * output_weight(gamma, self.config.network.residual_scale) ** self.config.p
            return loss

    def _generator_losses(self, images: Tensor, t: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Losses [N] of uint8 images at these levels, with this noise and these labels."""
        y0 = to_signed(from_uint8(images)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return generator_loss(self.forward, y0, t, noise, self.tables, labels)

    def check(self) -> None:
        """NotFiniteError where a step since the last line of the log has a loss or gradient that is not finite."""
        self.unlogged.tensor(self.step)

    def save(self, path: Path, data: str) -> None:
        """Write everything that the next step depends on, atomically. data: digest of the images."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.state_dict().items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": tensor for name, tensor in moments.items()}
        tensors["unlogged"] = self.unlogged.tensor(self.step)
        if self.scaler.is_enabled():
            tensors |= {f"scaler.{name}": torch.tensor(value) for name, value in self.scaler.state_dict().items()}
        saved = {}
        for name, tensor in tensors.items():
            tensor = whole(tensor)
            if self.here.leads:
                saved[name] = tensor.cpu().contiguous()
        self.here.lead(lambda: self._write(path, saved, data))

    def _write(self, path: Path, tensors: dict[str, Tensor], data: str) -> None:
        progress = Progress(self.step, self.best_psnr, data, checkpoint.tensors_digest(tensors))
        content = safetensors.torch.save(tensors, {PROGRESS_KEY: json.dumps(asdict(progress))})
        atomic_write(path, content, durable=True)

    def restore(self, path: Path, data: str) -> None:
        """Continue from what `save` wrote.

        Raises UserError for another file, a damaged one, the state of another network, and images that are not those
        that training began with.
        """
        progress = self.here.lead(lambda: _checked(path, data))
        tensors = safetensors.torch.load_file(path)

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        checkpoint.check_shapes(part("network."), self.network, path)
        for own, saved in ((self.network.state_dict(), part("network.")), (self.ema.state_dict(), part("ema."))):
            fill(own.values(), (saved[name] for name in own))
        moments = {}
        for index, parameter in enumerate(self.network.parameters()):
            moments[index] = part(f"adam.{index}.")
            for name in ("exp_avg", "exp_avg_sq"):  # fused Adam walks memory: moments need the weights' layout
                moment = torch.empty_like(parameter, requires_grad=False)
                fill([moment], [moments[index][name]])
                moments[index][name] = moment
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        if self.scaler.is_enabled():
            self.scaler.load_state_dict({name: tensor.item() for name, tensor in part("scaler.").items()})
        if len(tensors["unlogged"]) == 3:  # states of older versions have no gradient norms
            self.unlogged.restore(tensors["unlogged"])
        self.step, self.best_psnr = progress.step, progress.best_psnr

    def losses(self) -> dict[str, float]:
        """Mean losses and gradient norms since the last call, see `Unlogged.means`."""
        return self.unlogged.means(self.step, by_level=self.config.model != "regression")

    def recorded(self) -> TrainConfig:
        """The config with the precision that "auto" came to: what checkpoints carry."""
        precision: Any = str(self.dtype).removeprefix("torch.")
        return replace(self.config, optimiser=replace(self.config.optimiser, precision=precision))

    def averaged(self) -> Preconditioner:
        """A copy of the model with the EMA weights, in eval mode."""
        model = self._untrained()
        model.unet.load_state_dict({name: whole(tensor) for name, tensor in self.ema.state_dict().items()})
        return model.eval()

    def _untrained(self) -> Preconditioner:
        model = precondition(self.config.model, self.config.network)
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _checked(path: Path, data: str) -> Progress:
    """What a saved state says of itself; UserError where it is damaged, or where `data` are other images."""
    content, metadata = checkpoint.read(path)
    progress = _progress(metadata, path)
    if checkpoint.tensors_digest(safetensors.torch.load(content)) != progress.sha256:
        raise UserError(f"{path}: damaged: its tensors are not those that were saved; start in another folder")
    if data != progress.data:
        raise UserError(
            f"{path}: the training or validation images have changed since step {progress.step}; put them back, or "
            "start in another folder, with start = the model.safetensors of this one"
        )
    return progress


def _progress(metadata: dict[str, str], path: Path) -> Progress:
    try:
        return Progress(**json.loads(metadata[PROGRESS_KEY]))
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{path}: not a state that `sr3eval train` saved, or one of another version") from None


def claim(out: Path, config: TrainConfig) -> None:
    """Make `out` the folder of this run, or find that it is: what `TrainConfig.fixed` leaves out may be other."""
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

    A run resumes bit for bit; its steps, workers, what is logged and how a batch is computed (`TrainConfig.fixed`) may
    change, so that a finished one can be extended, and other machines resume it.
    Writes config.toml, state.safetensors (to go on from), model.safetensors (EMA weights: the last ones, or those
    of the best validation PSNR for Regression), checkpoints/ (EMA weights of the last validations), metrics.jsonl,
    curves.html, tensorboard/ and samples/. Closing the iterator saves the state, so that nothing is lost; a kill loses
    the steps since the last save. Raises UserError when `out` holds another run, an image cannot be read, or the loss
    is no longer finite; what was saved before stays.

    In a job of several processes every one iterates over it, in step, and closes it at the same event; they share every
    batch and the validation, and the first one writes. Another number of processes may resume a run.
    """
    here = job()
    config, device = _in_job(config.resolved(), here), device or default_device()
    check_device(config.optimiser, device)
    data, optimiser = config.data, config.optimiser
    folders = here.lead(lambda: stream.open_folders(data, config.target))
    folder, validation_folder, too_small, validation_too_small = folders
    config = replace(config, classes=class_names(folder, config))
    validation = validation_of(config, validation_folder, here)
    digest = here.lead(lambda: stream.digest(folder, validation_folder))
    trainer = Trainer(config, device, here)
    here.lead(lambda: claim(out, config))
    if here.lead((out / STATE_FILE).exists):
        trainer.restore(out / STATE_FILE, digest)
    if trainer.step > optimiser.steps:
        raise UserError(f"{out}: is already trained to step {trainer.step}, beyond optimiser.steps = {optimiser.steps}")
    title = f"{NAMES[config.model]} {config.target.name}"
    log = TrainingLog(out, trainer.step, title, facts(trainer)) if here.leads else NoLog()
    if trainer.step == 0:
        left_out = {"left_out_too_small": len(too_small), "validation_left_out_too_small": len(validation_too_small)}
        log.write({"step": 0, "training_images": len(folder), **left_out})
    try:
        examples = stream.examples(folder, config, device, trainer.step, here)
        yield from _steps(trainer, examples, validation, log, out, digest)
    except NotFiniteError as error:
        raise UserError(f"{error}. {_remedy(out, trainer.step)}") from None
    finally:
        log.close()


def _in_job(config: TrainConfig, here: Job) -> TrainConfig:
    """The config as the job's launcher has it; UserError where so many processes cannot run it."""
    check_job(config.optimiser, here)
    if here.count > 1 and asks_for_shards():
        return replace(config, optimiser=replace(config.optimiser, sharding="fsdp"))
    return config


def validation_of(config: TrainConfig, folder: Folder, here: Job = ALONE) -> Scorer:
    """What scores the model of a run, on the images of this folder."""
    images = stream.validation_images(folder, config.data)
    if config.generates:
        return GeneratorValidation(config, images, stream.validation_labels(folder, config), here)
    return Validation(config, config.target, images, here)


def check_device(optimiser: OptimiserConfig, device: torch.device) -> None:
    """UserError where the device cannot do what the config asks for."""
    if optimiser.compile:
        check_compiler(device)
    if optimiser.cuda_graph and device.type != "cuda":
        raise UserError("optimiser.cuda_graph: this machine has no GPU; --set optimiser.cuda_graph=false")
    if optimiser.precision == "float16" and device.type != "cuda":
        raise UserError('optimiser.precision = "float16": this machine has no GPU; --set optimiser.precision=auto')


def facts(trainer: Trainer) -> list[str]:
    """What the page of the curves says of a run."""
    config = trainer.recorded()
    blur = [f"blur σ {' to '.join(map(str, config.data.blur))}"] if config.data.blur is not None else []
    return [f"L{config.p}", *blur, f"batches of {config.optimiser.batch_size}", config.optimiser.precision]


def _steps(
    trainer: Trainer,
    examples: Iterator[stream.Examples],
    validation: Scorer,
    log: TrainingLog | NoLog,
    out: Path,
    digest: str,
) -> Generator[Event, None, None]:
    """Train to the last step, log, validate and save."""
    every, optimiser = trainer.config.log, trainer.config.optimiser

    def due(period: int) -> bool:
        return trainer.step % period == 0 or trainer.step == optimiser.steps

    try:
        for hr, labels in examples:
            trainer.train_step(hr, labels)
            line: dict[str, Any] = {}
            if due(every.every):
                line |= {"rate": optimiser.rate(trainer.step), **trainer.losses()}
            if due(every.validate_every):
                trainer.check()
                line |= validate(trainer, validation, out)
            if line:
                line = {"step": trainer.step, **line}
                log.write(line)
            if due(every.save_every):
                trainer.save(out / STATE_FILE, digest)
            yield Event(trainer.step, optimiser.steps, line or None)
    except GeneratorExit:
        trainer.save(out / STATE_FILE, digest)  # stopped at a yield, between two steps
        raise


def validate(trainer: Trainer, validation: Scorer, out: Path) -> dict[str, float]:
    """Score the EMA weights, write the sample sheet and the checkpoints."""
    model = trainer.averaged()
    scores, sheet = validation.run(model, trainer.device)
    psnr = scores.get("psnr", -math.inf)
    best = trainer.config.model != "regression" or psnr > trainer.best_psnr
    trainer.here.lead(lambda: _write_validated(trainer, model, sheet, best, out))
    trainer.best_psnr = max(trainer.best_psnr, psnr)
    return scores


def _write_validated(trainer: Trainer, model: Preconditioner, sheet: bytes, best: bool, out: Path) -> None:
    atomic_write(out / "samples" / f"step_{trainer.step:07d}.png", sheet)
    config, weights = configs.to_dict(trainer.recorded()), model.unet.state_dict()
    if best:
        checkpoint.save(out / WEIGHTS_FILE, config, trainer.step, weights)
    if trainer.config.log.keep:
        checkpoint.save(out / CHECKPOINTS / f"step_{trainer.step:07d}.safetensors", config, trainer.step, weights)
    for _, path in checkpoints(out, trainer.step)[: -trainer.config.log.keep or None]:
        path.unlink()


def checkpoints(out: Path, step: int) -> list[tuple[int, Path]]:
    """The kept checkpoints of a run up to a step, and their steps; a kill may have left later ones."""
    found = [(int(path.stem.removeprefix("step_")), path) for path in (out / CHECKPOINTS).glob("step_*.safetensors")]
    return sorted((at, path) for at, path in found if at <= step)


def _remedy(out: Path, step: int) -> str:
    """What to do once the loss is no longer finite."""
    kept = checkpoints(out, step)
    if kept:
        at, path = kept[-1]
        good = f'The last good checkpoint is of step {at}: start = "{path}" trains on from it'
    elif (out / WEIGHTS_FILE).exists():
        good = f'The last good checkpoint: start = "{out / WEIGHTS_FILE}" trains on from it'
    else:
        good = "No checkpoint was saved before: start again"
    return f"{good}, in another folder with a lower optimiser.learning_rate"
