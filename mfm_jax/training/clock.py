"""How long a run has trained, and how much of it is done: the same on every process."""

import time

import jax
import numpy as np
from jax.experimental import multihost_utils


class Clock:
    """Seconds of training, in all sessions of a run.

    Several processes must take the same turns, so all go by the first one's clock, asked for every few steps.

    Attributes:
        seconds: at the last reading.
    """

    def __init__(self, trained: float, every: int) -> None:
        """Start.

        Args:
            trained: seconds of earlier sessions.
            every: steps between readings, where several processes must agree.
        """
        self.seconds = trained
        self._begun = time.monotonic() - trained
        self._several = jax.process_count() > 1
        self._every = every if self._several else 1

    def read(self, step: int) -> float:
        """Read it after a step; every process must, after every step."""
        if step % self._every == 0:
            now = time.monotonic() - self._begun
            if self._several:
                now = float(multihost_utils.broadcast_one_to_all(np.float32(now)))
            self.seconds = now
        return self.seconds
