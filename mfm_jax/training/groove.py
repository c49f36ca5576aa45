"""Drum parts by rule, for scores that have none: open music with drums is rare."""

import itertools

import numpy as np

from mfm_jax.axes import TICKS_PER_BEAT
from mfm_jax.music.tempo import TempoMap

KICK, STICK, SNARE, CLAP, HAT, PEDAL_HAT, OPEN_HAT = 36, 37, 38, 39, 42, 44, 46
TOMS = (41, 43, 45, 47, 48, 50)
CRASH, RIDE, TAMBOURINE, SHAKER = 49, 51, 54, 82


def drum_part(tempo: TempoMap, end_tick: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a drum part: a two-bar pattern, varied a little, with a fill before every fourth or eighth bar.

    Returns:
        [n, 4] onset tick, offset tick, pitch, velocity; on the tick grid.
    """
    step = TICKS_PER_BEAT // int(rng.choice([2, 3, 4], p=[0.6, 0.15, 0.25]))
    timekeeper = int(rng.choice([HAT, RIDE, SHAKER, TAMBOURINE, PEDAL_HAT], p=[0.5, 0.25, 0.1, 0.1, 0.05]))
    backbeat = int(rng.choice([SNARE, CLAP, STICK], p=[0.7, 0.15, 0.15]))
    phrase = int(rng.choice([4, 8]))
    syncopation = rng.uniform(0, 0.35)
    pattern_seed = int(rng.integers(1 << 31))
    bars = np.append(tempo.bars(end_tick), end_tick)
    hits: list[tuple[float, int, float]] = []
    for number, (start, stop) in enumerate(itertools.pairwise(bars)):
        pattern = np.random.default_rng(pattern_seed + number % 2)  # a two-bar pattern, repeated
        places = np.arange(0, stop - start - 0.5, step)
        fill_from = stop - start - TICKS_PER_BEAT if (number + 1) % phrase == 0 else np.inf
        if number % phrase == 0 and rng.random() < 0.7:
            hits.append((start, CRASH, 105))
        for place in places:
            beat, within = divmod(place, TICKS_PER_BEAT)
            kick, ghost = pattern.random(), pattern.random()
            if place >= fill_from:
                hits.append((start + place, int(rng.choice([SNARE, *TOMS])), rng.uniform(70, 110)))
                continue
            hits.append((start + place, timekeeper, 80 if within == 0 else 58))
            if (
                place == 0
                or (within == 0 and beat % 2 == 0 and kick < 0.8)
                or kick < syncopation * (within > 0)
            ):
                hits.append((start + place, KICK, 100))
            if within == 0 and beat % 2 == 1:
                hits.append((start + place, backbeat, 98))
            elif within and ghost < 0.06:
                hits.append((start + place, SNARE, 45))
    if not hits:
        return np.zeros((0, 4))
    onset, pitch, velocity = np.array(hits).T
    velocity = np.clip(velocity + rng.normal(0, 5, len(hits)), 10, 127)
    notes = np.stack([onset, np.minimum(onset + 2, end_tick), pitch, velocity], axis=1)
    notes = notes[(notes[:, 1] > notes[:, 0]) & (rng.random(len(notes)) > 0.03)]
    return notes[np.lexsort((notes[:, 2], notes[:, 0]))]
