"""When a run must end early: SIGTERM, SIGINT, or a preemption notice to any of its processes."""

import os
import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Stopper:
    """Hears signals while it is entered; the run ends where it asks, never in the middle of something.

    More signals change nothing. With several processes all must end after the same step: SIGTERM is then
    left to JAX, which tells the others and agrees on the step, and SIGINT is passed on as SIGTERM.

    Attributes:
        signal: the first that came, 0 for none.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._several = jax.process_count() > 1
        self._before: dict[int, signal.Handlers | object] = {}

    def __enter__(self) -> "Stopper":
        if threading.current_thread() is threading.main_thread():  # the only one that may listen
            for number in (signal.SIGINT,) if self._several else (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        self.signal = self.signal or number

    def after(self, step: int) -> bool:
        """Say whether the run ends after this step; every process must ask after every step."""
        if not self._several:
            return bool(self.signal)
        agreed = bool(multihost_utils.reached_preemption_sync_point(step))
        if agreed:
            self.signal = self.signal or signal.SIGTERM
        return agreed
