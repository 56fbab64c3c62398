"""Precision and compilers, as the hardware and PyTorch's version have them."""

import pytest
import torch

from sr3eval import device
from sr3eval.errors import UserError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        (lambda including_emulation=True: including_emulation, torch.float32),
        (lambda including_emulation=True: True, torch.bfloat16),
        (lambda: True, torch.bfloat16),
        (lambda: False, torch.float32),
    ],
)
def test_emulated_bfloat16_is_not_chosen(monkeypatch, probe, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", probe)
    assert device.training_dtype("auto", CUDA) == expected


def test_float32_where_pytorch_cannot_tell(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert device.training_dtype("auto", CPU) == torch.bfloat16
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert device.training_dtype("auto", CPU) == torch.float32
    assert device.training_dtype("bfloat16", CPU) == torch.bfloat16


def test_only_the_cpu_needs_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    device.check_compiler(CUDA)
    with pytest.raises(UserError, match="C\\+\\+"):
        device.check_compiler(CPU)
    (tmp_path / "mine").write_text("")
    (tmp_path / "mine").chmod(0o755)
    monkeypatch.setenv("CXX", "mine -m64")
    device.check_compiler(CPU)
