"""The tempo map: musical time (ticks) against clock time (seconds, frames)."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mfm_jax.axes import FRAME_RATE, TICKS_PER_BEAT

TICKS_PER_WHOLE = 4 * TICKS_PER_BEAT
Number = float | int
Values = Number | np.generic | Sequence[Number] | npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class TempoMap:
    """Piecewise constant tempo and metre.

    Attributes:
        ticks: where each tempo starts, in ticks; the first is 0, strictly rising.
        bpm: quarter notes a minute from there on.
        metres: (tick, numerator, denominator); the first at tick 0; each starts a bar.
    """

    ticks: tuple[Number, ...] = (0.0,)
    bpm: tuple[Number, ...] = (120.0,)
    metres: tuple[tuple[Number, int, int], ...] = ((0.0, 4, 4),)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ticks", tuple(float(tick) for tick in self.ticks))
        object.__setattr__(self, "bpm", tuple(float(bpm) for bpm in self.bpm))
        object.__setattr__(self, "metres", tuple((float(t), int(n), int(d)) for t, n, d in self.metres))
        if len(self.ticks) != len(self.bpm):
            raise ValueError(f"{len(self.ticks)} tempo positions for {len(self.bpm)} tempos: must be as many")
        _check_rising("tempo positions", self.ticks)
        _check_rising("metre positions", tuple(metre[0] for metre in self.metres))
        for bpm in self.bpm:
            if not (np.isfinite(bpm) and bpm > 0):
                raise ValueError(f"tempo {bpm:g} bpm: must be positive and finite, such as 120")
        for _, numerator, denominator in self.metres:
            if not (1 <= numerator <= 255 and 1 <= denominator <= 128 and denominator.bit_count() == 1):
                raise ValueError(
                    f"metre {numerator}/{denominator}: must be 1..255 over a power of two up to 128"
                )

    @classmethod
    def constant(cls, bpm: Number = 120.0, metre: tuple[int, int] = (4, 4)) -> "TempoMap":
        """Make a map with one tempo and one metre."""
        return cls((0.0,), (bpm,), ((0.0, *metre),))

    @functools.cached_property
    def _points(self) -> tuple[Floats, Floats, Floats]:
        """Ticks, seconds and ticks a second at each tempo change."""
        ticks = np.array(self.ticks)
        speed = np.array(self.bpm) * (TICKS_PER_BEAT / 60.0)
        seconds = np.concatenate([[0.0], np.cumsum(np.diff(ticks) / speed[:-1])])
        return ticks, seconds, speed

    def tick_to_second(self, ticks: Values) -> Floats:
        """Convert ticks (any shape; negative ones at the first tempo) to seconds, float64."""
        starts, seconds, speed = self._points
        x = np.asarray(ticks, np.float64)
        i = np.maximum(np.searchsorted(starts, x, side="right") - 1, 0)
        return np.asarray(seconds[i] + (x - starts[i]) / speed[i])

    def second_to_tick(self, seconds: Values) -> Floats:
        """Convert seconds (any shape) to ticks, float64."""
        starts, times, speed = self._points
        x = np.asarray(seconds, np.float64)
        i = np.maximum(np.searchsorted(times, x, side="right") - 1, 0)
        return np.asarray(starts[i] + (x - times[i]) * speed[i])

    def tick_to_frame(self, ticks: Values) -> Floats:
        """Convert ticks to frames (float; frame f is at second f * HOP / SAMPLE_RATE)."""
        return np.asarray(self.tick_to_second(ticks) * FRAME_RATE)

    def frame_to_tick(self, frames: Values) -> Floats:
        """Convert frames to ticks, float64."""
        return self.second_to_tick(np.asarray(frames, np.float64) / FRAME_RATE)

    def frame_ticks(self, n_frames: int, start: int = 0) -> npt.NDArray[np.float32]:
        """Give the tick positions of frames start .. start + n_frames - 1 -> float32 [F]."""
        return self.frame_to_tick(np.arange(start, start + n_frames)).astype(np.float32)

    def bpm_at(self, tick: Number) -> float:
        """Give the tempo at a tick, quarter notes a minute."""
        return self.bpm[max(int(np.searchsorted(self.ticks, tick, side="right")) - 1, 0)]

    def metre_at(self, tick: Number) -> tuple[int, int]:
        """Give the metre (numerator, denominator) at a tick."""
        starts = [metre[0] for metre in self.metres]
        return self.metres[max(int(np.searchsorted(starts, tick, side="right")) - 1, 0)][1:]

    def ticks_per_bar(self, tick: Number = 0.0) -> float:
        """Give the length of a full bar in the metre at a tick."""
        numerator, denominator = self.metre_at(tick)
        return TICKS_PER_WHOLE * numerator / denominator

    def bars(self, end_tick: Number) -> Floats:
        """Give the tick of each bar's start in [0, end_tick); a change of metre always starts a bar."""
        starts = [metre[0] for metre in self.metres] + [np.inf]
        parts = [
            np.arange(start, min(after, end_tick), TICKS_PER_WHOLE * numerator / denominator)
            for (start, numerator, denominator), after in zip(self.metres, starts[1:], strict=True)
            if start < end_tick
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def scaled(self, factor: Number) -> "TempoMap":
        """Give the map with every tempo multiplied by a factor (2 is twice as fast)."""
        return dataclasses.replace(self, bpm=tuple(bpm * factor for bpm in self.bpm))

    def cropped(self, start_tick: Number, end_tick: Number = np.inf) -> "TempoMap":
        """Give the map of [start_tick, end_tick), its start moved to tick 0; barlines stay in place."""
        if not 0 <= start_tick < end_tick:
            raise ValueError(
                f"crop {start_tick:g}..{end_tick:g}: must start at 0 or later and end after its start"
            )
        inner = [i for i, tick in enumerate(self.ticks) if start_tick < tick < end_tick]
        ticks = (0.0, *(self.ticks[i] - start_tick for i in inner))
        bpm = (self.bpm_at(start_tick), *(self.bpm[i] for i in inner))
        metre = self.metre_at(start_tick)
        metres = {t - start_tick: (n, d) for t, n, d in self.metres if start_tick < t < end_tick}
        # Started inside a bar: say again where the next bar begins.
        in_force = max(t for t, _, _ in self.metres if t <= start_tick)
        over = (start_tick - in_force) % self.ticks_per_bar(start_tick)
        next_bar = self.ticks_per_bar(start_tick) - over
        if over and next_bar < min([*metres, end_tick - start_tick]):
            metres[next_bar] = metre
        entries = [(0.0, *metre), *((tick, *metres[tick]) for tick in sorted(metres))]
        return dataclasses.replace(self, ticks=ticks, bpm=bpm, metres=tuple(entries))

    def shifted(self, ticks: Number) -> "TempoMap":
        """Give the map with `ticks` >= 0 of time put before it, in the first tempo and metre."""
        if ticks < 0:
            raise ValueError(f"shift by {ticks:g} ticks: must be 0 or more; use cropped to remove time")
        moved = tuple((t + ticks, n, d) for t, n, d in self.metres)
        lead = (0.0, *self.metres[0][1:])
        return dataclasses.replace(
            self,
            ticks=(0.0, *(tick + ticks for tick in self.ticks[1:])),
            metres=(lead, *(moved if ticks > 0 else moved[1:])),
        )

    def to_json(self) -> dict[str, Any]:
        """Give a plain dict that `from_json` reads."""
        return {
            "ticks": list(self.ticks),
            "bpm": list(self.bpm),
            "metres": [list(metre) for metre in self.metres],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TempoMap":
        """Read what `to_json` wrote."""
        return cls(
            tuple(value["ticks"]), tuple(value["bpm"]), tuple((t, n, d) for t, n, d in value["metres"])
        )


def _check_rising(what: str, positions: tuple[Number, ...]) -> None:
    if not positions or positions[0] != 0 or not np.all(np.isfinite(positions)):
        raise ValueError(f"{what} {positions[:3]}: must be finite and start at tick 0")
    if any(later <= earlier for earlier, later in itertools.pairwise(positions)):
        raise ValueError(f"{what} must rise strictly")
