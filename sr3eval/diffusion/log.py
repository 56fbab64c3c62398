"""The log of a training run: metrics.jsonl and TensorBoard, both cut back to the step that a run resumes from."""

import json
from pathlib import Path
from typing import Any

from sr3eval.files import atomic_write


class TrainingLog:
    """Appends lines {"step": ..., name: number} to both logs."""

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = out / "metrics.jsonl"
        if path.exists():
            # A kill may leave half a last line, and lines of steps that will be run again.
            complete = [
                line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1:] == "\n"
            ]
            kept = [line for line in complete if json.loads(line)["step"] <= step] if step else []
            atomic_write(path, "".join(kept).encode())
        self.file = path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def write(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        for name, value in line.items():
            if name != "step":
                self.board.add_scalar(name, value, line["step"])

    def close(self) -> None:
        self.file.close()
        self.board.close()
