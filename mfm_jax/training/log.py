"""Metrics of a run: JSON lines, a progress line, and TensorBoard where it is installed."""

import importlib
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any


class MetricsLog:
    """Appends to `metrics.jsonl`; lines beyond the step that a run resumes from are dropped."""

    def __init__(self, folder: Path, resumed_from: int, tensorboard: bool = False) -> None:
        """Open the log of a run.

        Raises:
            ValueError: TensorBoard is asked for and tensorboardX is not installed.
        """
        self._path = folder / "metrics.jsonl"
        if self._path.exists():
            kept = [line for line in self._path.read_text().splitlines() if _step(line) <= resumed_from]
            temporary = self._path.with_suffix(".part")
            temporary.write_text("".join(line + "\n" for line in kept))
            temporary.replace(self._path)
        self._file = self._path.open("a")
        self._board: Any = None
        if tensorboard:
            if importlib.util.find_spec("tensorboardX") is None:
                raise ValueError("tensorboard=true needs tensorboardX: pip install 'mfm-jax[tensorboard]'")
            self._board = importlib.import_module("tensorboardX").SummaryWriter(str(folder / "tensorboard"))

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Add the metrics of a step."""
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return sys.maxsize  # cut off by a kill


def progress_line(name: str, step: int, scalars: dict[str, float], done: float, started: float) -> None:
    """Print one line of progress: step, main figures, share done, time left."""
    elapsed = time.monotonic() - started
    left = elapsed * (1 - done) / done if done > 0 else float("nan")
    shown = " ".join(f"{key} {value:.4g}" for key, value in scalars.items() if key not in ("rate", "seconds"))
    print(f"{name} {step} [{100 * done:.0f}%, {left / 60:.1f} min left] {shown}", flush=True)
