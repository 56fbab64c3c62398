"""Checkpoints that tests write for the adapters to read."""

import pytest
import torch


@pytest.fixture
def saved(tmp_path):
    """Write something as a checkpoint and give its path."""

    def save(content: object, name: str = "model.pth") -> str:
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return save
