import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_strategies import notes, quick, quiet, scores, tempo_maps

from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.notes import Score, Track, check_notes, empty_notes, notes_in_seconds, notes_in_ticks, tidy
from mfm_jax.music.tempo import TempoMap

pytestmark = quiet


def table(*rows):
    return np.array(rows, np.float64)


def test_tidy_merges_cuts_and_sorts():
    messy = table([12, 24, 60, 50], [0, 20, 60, 80], [0, 30, 60, 70], [5, 5, 61, 9], [0, 4, 40, 1])
    expected = table([0, 4, 40, 1], [0, 12, 60, 80], [12, 24, 60, 50])
    np.testing.assert_array_equal(tidy(messy), expected)
    assert tidy(empty_notes()).shape == (0, 4)


@quick
@given(notes(grid=0.25))
def test_tidy_is_idempotent_and_leaves_no_overlap(table):
    np.testing.assert_array_equal(tidy(table), table)
    for pitch in np.unique(table[:, 2]):
        row = table[table[:, 2] == pitch]
        assert np.all(row[1:, 0] >= row[:-1, 1])


@quick
@given(notes(grid=0.5), tempo_maps())
def test_seconds_and_back(table, tempo):
    back = notes_in_ticks(notes_in_seconds(table, tempo), tempo)
    np.testing.assert_allclose(back, table, atol=1e-6)


@quick
@given(scores(), st.integers(0, 200), st.integers(1, 200))
def test_crop_keeps_what_begins_inside(score, start, length):
    crop = score.crop(start, start + length)
    assert len(crop.tracks) == len(score.tracks)
    for before, after in zip(score.tracks, crop.tracks, strict=True):
        inside = before.notes[(before.notes[:, 0] >= start) & (before.notes[:, 0] < start + length)]
        np.testing.assert_array_equal(after.notes[:, 0] + start, inside[:, 0])
        assert np.all(after.notes[:, 1] <= length)
        assert np.all(after.notes[:, 1] > after.notes[:, 0])


@quick
@given(scores(), st.integers(-140, 140))
def test_transpose_moves_pitches_but_drums(score, semitones):
    moved = score.transpose(semitones)
    for before, after in zip(score.tracks, moved.tracks, strict=True):
        if before.instrument.is_drum:
            assert after is before
        else:
            kept = before.notes[
                (before.notes[:, 2] + semitones >= 0) & (before.notes[:, 2] + semitones <= 127)
            ]
            np.testing.assert_array_equal(after.notes[:, 2], kept[:, 2] + semitones)
            np.testing.assert_array_equal(after.notes[:, [0, 1, 3]], kept[:, [0, 1, 3]])


@quick
@given(scores(grid=0.25), st.sampled_from([1.0, 3.0, 0.5]))
def test_quantise_moves_no_onset_further_than_half_a_step(score, grid):
    for before, after in zip(score.tracks, score.quantise(grid).tracks, strict=True):
        assert np.all(after.notes[:, :2] % grid == 0)
        for on, _, pitch, _ in before.notes:
            same = after.notes[after.notes[:, 2] == pitch, 0]
            assert np.min(np.abs(same - on)) <= grid / 2


def test_score_facts():
    piano, cello, kit = instrument_of(0), instrument_of(42), instrument_of(8, True)
    score = Score(
        (
            Track(piano, table([0, 12, 60, 64])),
            Track(piano, table([6, 24, 60, 90], [0, 6, 48, 30])),
            Track(cello, empty_notes()),
            Track(kit, table([0, 48, 36, 100])),
        ),
        TempoMap.constant(60),
    )
    assert score.end == 48
    assert score.seconds == 4.0
    assert score.n_notes == 4
    assert list(score.by_category()) == [0, 1]
    np.testing.assert_array_equal(
        score.by_category()[1], table([0, 6, 48, 30], [0, 6, 60, 64], [6, 24, 60, 90])
    )
    assert len(score.all_notes()) == 4
    empty = Score(())
    assert (empty.end, empty.seconds, empty.n_notes, len(empty.all_notes())) == (0, 0, 0, 0)


def test_from_seconds():
    score = Score.from_seconds([(instrument_of(0), table([0.5, 1.0, 60, 64]))], TempoMap.constant(60), "x")
    np.testing.assert_allclose(score.tracks[0].notes, table([6, 12, 60, 64]))
    assert score.title == "x"


@pytest.mark.parametrize(
    "bad", [[0, 1, 128, 64], [0, 1, -1, 64], [0, np.nan, 60, 64], [np.inf, np.inf, 60, 64]]
)
def test_bad_notes_are_refused(bad):
    with pytest.raises(ValueError, match=r"must be|are 0"):
        check_notes(table(bad))


def test_bad_grid_is_refused():
    with pytest.raises(ValueError, match="grid"):
        Score(()).quantise(0)
