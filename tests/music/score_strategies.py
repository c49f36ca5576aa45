"""Hypothesis strategies for notes, tempo maps and scores."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.notes import Score, Track, tidy
from mfm_jax.music.tempo import TempoMap

# The same examples every time; no shrinking, which takes minutes under the type checks (restore it to debug).
quick = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)

# beartype draws the item of a tuple that it looks at; hypothesis would rather draw it itself.
quiet = pytest.mark.filterwarnings("ignore:Do not use the `random` module")

METRES = st.sampled_from([(4, 4), (3, 4), (6, 8), (2, 2), (5, 4), (7, 8), (1, 4)])
# Tempos that MIDI holds exactly: whole microseconds a quarter note.
BPM = st.integers(150_000, 2_000_000).map(lambda microseconds: 60e6 / microseconds)


def ticks(grid: float = 1.0, last: int = 400):
    return st.integers(0, int(last / grid)).map(lambda k: k * grid)


@st.composite
def notes(draw, grid: float = 1.0, min_size: int = 0, max_size: int = 30):
    rows = draw(
        st.lists(
            st.tuples(ticks(grid), st.integers(1, int(60 / grid)), st.integers(0, 127), st.integers(1, 127)),
            min_size=min_size,
            max_size=max_size,
        )
    )
    table = np.array([[on, on + n * grid, pitch, loud] for on, n, pitch, loud in rows], np.float64).reshape(
        -1, 4
    )
    return tidy(table)


@st.composite
def tempo_maps(draw, bpm=BPM):
    places = sorted(draw(st.sets(st.integers(1, 400), max_size=5)))
    changes = [float(place) for place in places]
    tempos = draw(st.lists(bpm, min_size=len(places) + 1, max_size=len(places) + 1, unique=True))
    metre_places = sorted(draw(st.sets(st.integers(1, 400), max_size=3)))
    metres = [(0.0, *draw(METRES))]
    for place in metre_places:
        metre = draw(METRES.filter(lambda metre, last=metres[-1][1:]: metre != last))
        metres.append((float(place), *metre))
    return TempoMap((0.0, *changes), tuple(tempos), tuple(metres))


@st.composite
def scores(draw, grid: float = 1.0, max_tracks: int = 4):
    tracks = draw(
        st.lists(
            st.tuples(st.integers(0, 127), st.booleans(), notes(grid, min_size=1)),
            min_size=1,
            max_size=max_tracks,
        )
    )
    parts = tuple(Track(instrument_of(program, is_drum), table) for program, is_drum, table in tracks)
    return Score(parts, draw(tempo_maps()), draw(st.sampled_from(["", "Étude", "A title"])))
