"""What a run does with its time: speed, utilisation, goodput, memory, and a trace of some steps when asked.

The loop never waits for a measurement. Laps are taken where it waits anyway: for the verdict of a step two
steps ago, so that in the long run a lap is a step.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mfm_jax.flops import count_program, rematerialises
from mfm_jax.pods.chips import chip_of
from mfm_jax.training.state import Turn
from mfm_jax.training.volume import Volume, volume
from mfm_jax.training.work import step_flops

Cause = Literal["compile", "data", "checkpoint", "sample"]
CAUSES: tuple[Cause, ...] = ("compile", "data", "checkpoint", "sample")
SIDE = 1_024  # of the matrices whose product tells a CPU's peak
TRIALS = 5
WARM = 3  # steps before a trace begins
MIB = 2**20


class Meter:
    """Takes laps, and books what was no training under its cause."""

    def __init__(self, peak: float, skipped: int = 0) -> None:
        """Start the clock.

        Args:
            peak: floating-point operations a second of all devices together.
            skipped: steps so far that moved nothing.
        """
        self._peak, self._seen = peak, skipped
        self._flops: dict[Turn, float] = {}
        self._volume = Volume(0, 0.0)
        self._begun = self._last = time.monotonic()
        self._lost = dict.fromkeys(CAUSES, 0.0)
        self._since_lap = 0.0  # seconds lost since the last lap
        self._laps: list[float] = []
        self._worked = 0.0  # operations of the laps
        self._trained = self._skipped = 0.0  # seconds of all laps; of those that moved nothing

    @contextmanager
    def lost(self, cause: Cause) -> Iterator[None]:
        """Book what happens inside as no training."""
        begun = time.monotonic()
        yield
        self._book(cause, time.monotonic() - begun)

    @contextmanager
    def fetching(self, last: Any) -> Iterator[None]:
        """Book the wait for data, unless the devices were still at work at its end.

        Args:
            last: a result of the step before, an array; None before the first.
        """
        begun = time.monotonic()
        yield
        if last is None or last.is_ready():
            self._book("data", time.monotonic() - begun)

    @contextmanager
    def first_time(self, turn: Turn, step: Any, *arguments: Any) -> Iterator[None]:
        """Around the call of a step: if it is the first of its kind, count its work and book the compilation.

        Args:
            turn: which kind.
            step: the jitted step,
            arguments: and its own: state, frozen parameters, batch over all processes, and so on.
        """
        if turn in self._flops:
            yield
            return
        with self.lost("compile"):
            program = step.trace(*arguments).jaxpr
            state, frozen, batch = arguments[:3]
            if rematerialises(program):
                found = step_flops(turn.objective, state.params, frozen, batch, turn.part or None).model
            else:
                found = count_program(program)
            self._flops[turn], self._volume = found.total, volume(batch)
            yield

    def lap(self, turn: Turn) -> None:
        """End a step."""
        now = time.monotonic()
        self._laps.append(max(now - self._last - self._since_lap, 1e-9))
        self._worked += self._flops.get(turn, 0.0)
        self._last, self._since_lap = now, 0.0

    def figures(self, skipped: int) -> dict[str, float]:
        """Give the figures since the last call, and where the time has gone since the beginning.

        Args:
            skipped: steps so far that moved nothing.
        """
        laps = np.array(self._laps or [1e-9])
        total, count = float(laps.sum()), len(self._laps)
        self._trained += total
        self._skipped += total * min((skipped - self._seen) / max(count, 1), 1.0)
        self._seen = skipped
        wall = max(time.monotonic() - self._begun, 1e-9)
        low, high = np.quantile(laps, [0.1, 0.9])
        found = {
            "step_seconds": float(np.median(laps)),
            "step_spread": float(high - low),
            "tokens_per_second": count * self._volume.tokens / total,
            "audio_seconds_per_second": count * self._volume.seconds / total,
            "flops_per_second": self._worked / total,
            "mfu": self._worked / total / self._peak,
            "goodput": (self._trained - self._skipped) / wall,
            **{f"lost/{cause}": seconds / wall for cause, seconds in self._lost.items()},
            "lost/skipped": self._skipped / wall,
            **memory(),
        }
        self._laps, self._worked = [], 0.0
        return {f"time/{name}": value for name, value in found.items()}

    def _book(self, cause: Cause, seconds: float) -> None:
        self._lost[cause] += seconds
        self._since_lap += seconds


def memory() -> dict[str, float]:
    """MiB in use: of this process, and of its fullest device where the backend tells."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    found = {"host_peak_mib": peak}
    told = [stats for d in jax.local_devices() if (stats := d.memory_stats())]
    if told:
        found["device_mib"] = max(s["bytes_in_use"] for s in told) / MIB
        found["device_peak_mib"] = max(s.get("peak_bytes_in_use", s["bytes_in_use"]) for s in told) / MIB
    return found


def peak_flops(devices: list[jax.Device]) -> float:
    """Operations a second of all devices: from the table of chips, or measured where they are CPUs.

    Simulated CPU devices share one machine, so they are measured as one.
    """
    chip = chip_of(devices[0].device_kind)
    return chip.flops * len(devices) if chip else measured_peak()


def measured_peak(side: int = SIDE, trials: int = TRIALS) -> float:
    """Operations a second of this machine's best float32 matrix product."""
    a = jnp.ones((side, side), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    times = []
    for _ in range(trials):
        begun = time.perf_counter()
        product(a, a).block_until_ready()
        times.append(time.perf_counter() - begun)
    return 2 * side**3 / min(times)


class Tracer:
    """Writes an XLA trace of some steps, after the first few, for TensorBoard's or Perfetto's viewer."""

    def __init__(self, folder: Path, steps: int) -> None:
        """Take where to, and how many steps; 0 traces nothing."""
        self._folder, self._left, self._waits = folder, steps, WARM
        self._runs = False

    def step(self, done: jax.Array) -> None:
        """Note the end of a step; `done` is one of its results."""
        if self._left <= 0:
            return
        if not self._runs:
            self._waits -= 1
            if self._waits <= 0:
                done.block_until_ready()
                jax.profiler.start_trace(str(self._folder))
                self._runs = True
            return
        self._left -= 1
        if self._left == 0:
            done.block_until_ready()
            self.close()

    def close(self) -> None:
        """Write what there is."""
        if self._runs:
            jax.profiler.stop_trace()
            self._runs, self._left = False, 0
