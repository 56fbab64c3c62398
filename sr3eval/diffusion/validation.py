"""Validation during training: always the same images and the same noise, so that two steps can be compared."""

import torch
from torch import Tensor

from sr3eval.diffusion.loss import sr3_loss
from sr3eval.diffusion.preconditioners import Preconditioner
from sr3eval.diffusion.regression import regress
from sr3eval.diffusion.solvers import NoisePerImage, SamplerConfig
from sr3eval.diffusion.sr3 import sample
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.distributed import ALONE, Job
from sr3eval.images import bicubic_up, encode_png, from_uint8, to_signed, to_uint8
from sr3eval.metrics.consistency import consistency
from sr3eval.metrics.psnr import psnr
from sr3eval.tasks import Task

BATCH = 32  # at most
SHEET_IMAGES = 8


class Validation:
    """Scores a model on fixed targets hr [N, 3, S, S] in [0, 1], which the processes of a job share."""

    def __init__(self, config: TrainConfig, task: Task, hr: Tensor, here: Job = ALONE) -> None:
        self.config, self.here, self.hr, self.lr = config, here, hr, task.degrade(hr)
        self.batches = list(torch.arange(len(hr)).split(min(BATCH, -(-len(hr) // here.count))))
        self.final_gamma = float(config.schedule.build().gammas[-1])
        self.sampler = SamplerConfig(config.log.sampling_steps, variance="posterior", clip=True)

    @torch.inference_mode()
    def run(self, model: Preconditioner, device: torch.device) -> tuple[dict[str, float], bytes]:
        """Mean PSNR (dB), consistency (MSE x 1e5), colour error (levels), loss on fixed noise; and the PNG sheet."""
        sr = from_uint8(torch.cat(self.here.map(lambda batch: self._upscale(model, batch, device), self.batches)))
        scores = {
            "psnr": float(psnr(sr, self.hr).mean()),
            "consistency": float(consistency(sr, self.lr).mean() * 1e5),
            "color_error": float((sr - self.hr).mean(dim=(2, 3)).abs().mean() * 255),
        }
        if self.config.model == "sr3":
            scores["validation_loss"] = self._loss(model, device)
        return scores, encode_png(self._sheet(sr))

    def _upscale(self, model: Preconditioner, batch: Tensor, device: torch.device) -> Tensor:
        """uint8 [n, 3, S, S] of the targets number `batch` [n]."""
        lr, size = self.lr[batch].to(device), (self.hr.shape[-2], self.hr.shape[-1])
        if self.config.model == "regression":
            return to_uint8(regress(model, lr, size)).cpu()
        return to_uint8(sample(model, lr, size, batch.tolist(), self.sampler, self.final_gamma)).cpu()

    def _loss(self, model: Preconditioner, device: torch.device) -> float:
        generator = torch.Generator().manual_seed(0)
        gamma = self.config.schedule.build().sample_gamma(len(self.hr), generator)
        noise = NoisePerImage(range(len(self.hr)), self.hr)()
        x = to_signed(bicubic_up(self.lr, (self.hr.shape[-2], self.hr.shape[-1])))
        inputs = (x, to_signed(self.hr), gamma.float(), noise)

        def loss(batch: Tensor) -> Tensor:
            x, y0, g, eps = (t[batch].to(device) for t in inputs)
            return sr3_loss(model, x, y0, g, eps, self.config.p).cpu()

        return float(torch.cat(self.here.map(loss, self.batches)).mean())

    def _sheet(self, sr: Tensor) -> Tensor:
        """Rows of bicubic | output | HR."""
        enlarged = bicubic_up(self.lr, (self.hr.shape[-2], self.hr.shape[-1]))
        rows = [torch.cat([e, s, h], dim=-1) for e, s, h in zip(enlarged, sr, self.hr, strict=True)]
        return torch.cat(rows[:SHEET_IMAGES], dim=-2)
