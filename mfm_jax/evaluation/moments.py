"""Mean and covariance of many frames, gathered as they come, in float64.

The bits of the result do not depend on how the frames were cut into batches: they are added in blocks of a
fixed size, and blocks are merged by the update of Chan, Golub and LeVeque (1979), which does not cancel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

BLOCK = 1024  # frames

Frames = Float[np.ndarray, "_ D"]


class Moments(NamedTuple):
    """Number of frames, their mean, and the sum of outer products of their deviations from it."""

    n: int
    mean: Float64[np.ndarray, " D"]
    scatter: Float64[np.ndarray, "D D"]

    @property
    def covariance(self) -> Float64[np.ndarray, "D D"]:
        """Sample covariance, with n - 1.

        Raises:
            ValueError: fewer than two frames.
        """
        if self.n < 2:
            raise ValueError(f"{self.n} frames: a covariance needs at least 2; give more or longer audio")
        covariance: Float64[np.ndarray, "D D"] = self.scatter / (self.n - 1)
        return covariance


def moments(frames: Frames) -> Moments:
    """Give the moments of frames that are all there."""
    gathering = Gathering(frames.shape[1])
    gathering.add(frames)
    return gathering.moments()


def merged(parts: Sequence[Moments]) -> Moments:
    """Merge moments of separate sets of frames."""
    n = np.array([part.n for part in parts])
    means = np.stack([part.mean for part in parts])
    mean = n @ means / n.sum()
    apart = means - mean[None]
    scatter = (apart * n[:, None]).T @ apart
    for part in parts:
        scatter += part.scatter
    return Moments(int(n.sum()), mean, scatter)


class Gathering:
    """Moments of frames that come in batches of any sizes."""

    def __init__(self, width: int) -> None:
        """Start without frames of `width` numbers."""
        self._total = Moments(0, np.zeros(width), np.zeros((width, width)))
        self._waiting = np.zeros((0, width))

    def add(self, frames: Frames) -> None:
        """Add a batch."""
        rows = np.concatenate([self._waiting, frames.astype(np.float64)])
        whole = len(rows) - len(rows) % BLOCK
        for start in range(0, whole, BLOCK):
            self._total = _joined(self._total, _of_block(rows[start : start + BLOCK]))
        self._waiting = rows[whole:]

    def moments(self) -> Moments:
        """Give the moments of all frames so far."""
        return _joined(self._total, _of_block(self._waiting)) if len(self._waiting) else self._total


def _of_block(rows: Float64[np.ndarray, "n D"]) -> Moments:
    mean = rows.mean(0)
    apart = rows - mean[None]
    return Moments(len(rows), mean, apart.T @ apart)


def _joined(a: Moments, b: Moments) -> Moments:
    if a.n == 0:
        return b
    n = a.n + b.n
    step = b.mean - a.mean
    between = np.outer(step, step) * (a.n * b.n / n)
    return Moments(n, a.mean + step * (b.n / n), a.scatter + b.scatter + between)
