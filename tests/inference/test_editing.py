from collections.abc import Iterator

import numpy as np

from mfm_jax.axes import SAMPLE_RATE
from mfm_jax.inference.editing import edited, spliced, touched
from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.notes import Score, Track
from mfm_jax.music.tempo import TempoMap


def score(*notes: tuple[float, float, float, float]) -> Score:
    return Score((Track(instrument_of(0), np.array(notes, float).reshape(-1, 4)),), TempoMap.constant(60))


def blocks(wave: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (wave[i : i + size] for i in range(0, len(wave), size))


BASE = score((0, 12, 60, 80), (24, 36, 64, 80), (120, 132, 67, 80))


def test_equal_scores_touch_nothing_even_after_a_trip_through_midi_units() -> None:
    assert touched(BASE, BASE) == []
    rounded = score((0, 12.0003, 60, 80), (24, 36, 64, 80.2), (120, 132, 67, 80))
    assert touched(BASE, rounded) == []


def test_a_changed_note_touches_its_surroundings_only() -> None:
    changed = score((0, 12, 60, 80), (24, 36, 65, 80), (120, 132, 67, 80))
    ((first, last),) = touched(BASE, changed)
    assert 1.5 * SAMPLE_RATE < first < 2 * SAMPLE_RATE
    assert 3 * SAMPLE_RATE < last < 4 * SAMPLE_RATE


def test_untouched_samples_are_bit_identical() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.standard_normal((2, 100_000)).astype(np.float32)
    spans = [(0, 5_000), (30_000, 60_000)]
    out = np.concatenate(list(spliced(blocks(old, 7_000), blocks(new, 4_321), spans)))
    np.testing.assert_array_equal(out[5_000:30_000], old[5_000:30_000])
    np.testing.assert_array_equal(out[60_000:], old[60_000:])
    np.testing.assert_array_equal(out[35_000:55_000], new[35_000:55_000])
    np.testing.assert_array_equal(out[:3_000], new[:3_000])


def test_a_longer_edit_goes_on_after_the_end() -> None:
    old, new = np.ones(1_000, np.float32), np.full(50_000, 2, np.float32)
    out = np.concatenate(list(spliced(blocks(old, 300), blocks(new, 700), [(0, 60_000)])))
    assert len(out) == 50_000
    assert (out[2_000:40_000] == 2).all()


def test_edits() -> None:
    up = edited(BASE, transpose=2)
    assert up.tracks[0].notes[:, 2].tolist() == [62, 66, 69]
    fast = edited(BASE, tempo=120.0)
    assert fast.seconds == BASE.seconds / 2
