"""What a run tells: means of its scalars, what the guards skipped, samples; to the writers and in print."""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mfm_jax.training.guards import CAUSE, CAUSES, IN_A_ROW
from mfm_jax.training.progress import Progress
from mfm_jax.training.writers import Writer

BEHIND = 2  # steps after which a verdict is read, so that the devices are never waited for

Scalars = dict[str, jax.Array]
Shown = Mapping[str, float | Path]


class Report:
    """Gathers scalars between lines of the log."""

    def __init__(self, name: str, writers: list[Writer], progress: Progress, skipped: np.ndarray) -> None:
        """Take the run's name, where things go, and the steps skipped so far by cause (`Guard.skipped`)."""
        self._name, self._writers, self._progress = name, writers, progress
        self._window: dict[str, list[Scalars]] = {}
        self._last: deque[Scalars] = deque(maxlen=BEHIND + 1)
        self._skipped = skipped

    def add(self, prefix: str, scalars: Scalars) -> int:
        """Keep the scalars of a step; gives how many steps in a row were skipped, up to a few steps ago."""
        self._last.append(scalars)
        self._window.setdefault(prefix, []).append(scalars)
        return int(self._last[0][IN_A_ROW]) if len(self._last) > BEHIND else 0

    def cause(self) -> str:
        """Say why the step was skipped that `add` last told of."""
        return CAUSES[int(self._last[0][CAUSE])].replace("_", " ")

    def log(self, step: int, skipped: np.ndarray, extra: dict[str, float], done: float) -> dict[str, float]:
        """Write the means since the last line, and what was skipped in all.

        Args:
            step: its number.
            skipped: steps so far, by cause.
            extra: other figures; `seconds` among them.
            done: share of the run.

        Returns:
            The means.
        """
        means = _means(self._window)
        self._window = {}
        counts = {"skipped": float(skipped.sum())}
        counts |= {f"skipped/{cause}": float(n) for cause, n in zip(CAUSES, skipped, strict=True)}
        figures = {**means, **counts, **extra}
        for writer in self._writers:
            writer.figures(step, figures)
        new = skipped - self._skipped
        self._skipped = skipped
        if new.any():
            told = ", ".join(f"{cause.replace('_', ' ')} {n}" for cause, n in zip(CAUSES, new) if n)
            self._progress.say(f"{self._name} {step}: steps skipped since the last line: {told}")
        self._progress.show(step, means, done, extra["seconds"])
        return means

    def close(self) -> None:
        """Close the writers."""
        self._progress.close()
        for writer in self._writers:
            writer.close()

    def show(self, step: int, shown: Shown, note: str, done: float, seconds: float) -> dict[str, float]:
        """Write figures and samples that a measurement of the parameters gave; gives the figures."""
        figures = {name: value for name, value in shown.items() if not isinstance(value, Path)}
        samples = {name: value for name, value in shown.items() if isinstance(value, Path)}
        for writer in self._writers:
            if figures:
                writer.figures(step, figures)
            if samples:
                writer.samples(step, samples)
        if figures:
            self._progress.show(step, figures, done, seconds, note)
        return figures


def _means(window: dict[str, list[Scalars]]) -> dict[str, float]:
    """Average the scalars of some steps, each kind for itself; steps that were skipped do not count."""
    found: dict[str, float] = {}
    for prefix, scalars in sorted(window.items()):
        values: list[dict[str, Any]] = jax.device_get(scalars)
        rows = [v for v in values if v[IN_A_ROW] == 0] or values
        names = [name for name in values[0] if name not in (IN_A_ROW, CAUSE)]
        found |= {prefix + name: float(np.mean([v[name] for v in rows])) for name in names}
    return found
