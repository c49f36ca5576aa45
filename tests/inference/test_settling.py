import numpy as np
import pytest

from mfm_jax.inference.generation import fullness
from mfm_jax.music.facts import find_key
from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.modes import in_mode, key_shift, lead
from mfm_jax.music.notes import Score, Track
from mfm_jax.music.words import Key

STEPS = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 11)}


def piece(tonic: int, mode: str) -> Score:
    """A scale over its tonic chord, and drums that are in no key."""
    scale = [(6.0 * i, 6.0 * i + 6, 60.0 + tonic + s, 80.0) for i, s in enumerate(STEPS[mode])]
    chord = [(0.0, 24.0, 48.0 + tonic + STEPS[mode][i], 80.0) for i in (0, 0, 2, 4)]
    drums = [(6.0 * i, 6.0 * i + 1, 37.0, 80.0) for i in range(8)]
    return Score(
        (Track(instrument_of(0), np.array(scale + chord)), Track(instrument_of(0, True), np.array(drums)))
    )


@pytest.mark.parametrize("mode", ["major", "minor"])
@pytest.mark.parametrize("wanted", range(12))
def test_the_transposed_piece_is_in_the_key(mode, wanted):
    score = piece(9, mode)
    shift = key_shift(score, Key(wanted, mode))
    assert -5 <= shift <= 6
    moved = score.transpose(shift)
    assert find_key(moved.tracks[0].notes) == Key(wanted, mode)
    np.testing.assert_array_equal(moved.tracks[1].notes, score.tracks[1].notes)


def test_no_key_no_shift():
    assert key_shift(piece(3, "major"), Key()) == 0
    assert key_shift(piece(3, "major"), Key(mode="major")) == 0
    assert key_shift(Score(()), Key(2, "major")) == 0
    assert key_shift(piece(3, "minor"), Key(3)) == 0


def test_fullness_counts_instruments_and_beats():
    notes = np.array([(12.0 * i, 12.0 * i + 12, 60.0, 80.0) for i in range(16)])
    piano, silent = Track(instrument_of(0), notes), Track(instrument_of(40), notes[:0])
    assert fullness(Score((piano,)), 16) == 1
    assert fullness(Score((piano, silent)), 16) == 0.5
    assert fullness(Score((piano,)), 32) == 0.5
    assert fullness(Score((silent,)), 16) == 0


@pytest.mark.parametrize(("written", "asked"), [("major", "minor"), ("minor", "major")])
def test_the_other_mode_is_reached_by_moving_few_degrees(written, asked):
    score = piece(2, written)
    changed, count = in_mode(score, Key(2, asked), Key(2, asked))
    assert find_key(changed.tracks[0].notes) == Key(2, asked)
    assert 0 < count <= 4
    np.testing.assert_array_equal(changed.tracks[1].notes, score.tracks[1].notes)


def test_notes_in_the_mode_asked_for_stay():
    score = piece(7, "minor")
    assert lead(score.tracks[0].notes, Key(7, "minor")) > 0.1
    assert in_mode(score, Key(7, "minor"), Key(7, "minor")) == (score, 0)
    assert in_mode(score, Key(7), Key(7)) == (score, 0)
