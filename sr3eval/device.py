"""Where networks run, and in which precision they train."""

import torch


def default_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def training_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of convolutions in training: bfloat16 where "auto" finds hardware for it, or where it is asked for."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    has_bf16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if has_bf16 else torch.float32
