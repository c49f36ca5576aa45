import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_strategies import notes, quick, quiet

from mfm_jax.axes import FRAME_RATE
from mfm_jax.music.notes import empty_notes, tidy
from mfm_jax.music.roll import RollDecoder, decode_roll, frames_roll, roll_to_notes, ticks_roll

pytestmark = quiet


def table(*rows):
    return np.array(rows, np.float64)


@quick
@given(notes())
def test_notes_on_the_grid_come_back_exactly(notes):
    roll = ticks_roll(notes, 480)
    assert roll.shape == (480, 128, 3)
    assert roll.dtype == np.float32
    np.testing.assert_array_equal(roll_to_notes(roll), notes)
    np.testing.assert_array_equal(decode_roll(roll), notes)


@quick
@given(notes(grid=0.125))
def test_other_notes_come_back_within_half_a_tick(notes):
    back = roll_to_notes(ticks_roll(notes, 480))
    for on, off, pitch, velocity in notes:
        same = back[back[:, 2] == pitch]
        near = same[np.abs(same[:, 0] - on) <= 0.5]
        assert len(near)
        rivals = notes[(notes[:, 2] == pitch) & (np.abs(notes[:, 0] - on) <= 60)]
        if len(rivals) == 1:  # no neighbour to cut it or merge with it
            assert near[0, 3] == velocity
            assert abs(near[0, 1] - off) <= 0.5 or (off - on < 1 and near[0, 1] == near[0, 0] + 1)


@quick
@given(notes(), st.integers(0, 300), st.integers(1, 200))
def test_a_window_is_a_slice_of_the_whole(notes, start, length):
    whole = ticks_roll(notes, 520)
    np.testing.assert_array_equal(ticks_roll(notes, length, start), whole[start : start + length])


def test_frames():
    seconds = table([0.5, 1.0, 60, 127], [1.0, 1.001, 61, 64])
    roll = frames_roll(seconds, 200)
    first, last = round(0.5 * FRAME_RATE), round(1.0 * FRAME_RATE)
    assert np.flatnonzero(roll[:, 60, 0]).tolist() == [first]
    assert np.flatnonzero(roll[:, 60, 1]).tolist() == list(range(first, last))
    assert np.flatnonzero(roll[:, 61, 1]).tolist() == [last]  # shorter than a frame, still there
    assert roll[first, 60, 2] == 1.0
    np.testing.assert_array_equal(frames_roll(seconds, 60, start=80), roll[80:140])


def test_repeated_and_held_notes_differ():
    held, repeated = table([0, 4, 60, 64]), table([0, 2, 60, 64], [2, 4, 60, 64])
    rolls = [ticks_roll(notes, 4) for notes in (held, repeated)]
    np.testing.assert_array_equal(rolls[0][..., 1:], rolls[1][..., 1:])
    assert len(roll_to_notes(rolls[1])) == 2


def test_activity_without_onset_is_a_note():
    roll = ticks_roll(table([0, 10, 60, 64]), 6, start=4)
    assert roll[..., 0].sum() == 0
    np.testing.assert_array_equal(roll_to_notes(roll), [[0, 6, 60, 64]])
    assert len(decode_roll(roll)) == 0


def test_empty():
    assert ticks_roll(empty_notes(), 5).sum() == 0
    assert roll_to_notes(np.zeros((5, 128, 3), np.float32)).shape == (0, 4)
    assert decode_roll(np.zeros((0, 128, 3), np.float32)).shape == (0, 4)
    assert RollDecoder().close().shape == (0, 4)
    assert roll_to_notes(np.zeros((0, 128, 3), np.float32)).shape == (0, 4)


@pytest.mark.parametrize("row", [(0, 1, 128, 1), (0, 1, -1, 1), (np.nan, 1, 60, 1)])
def test_what_does_not_fit_is_refused(row):
    with pytest.raises(ValueError, match=r"0\.\.127|finite"):
        ticks_roll(table(row), 4)


def blurred(times, n_frames=400, width=5):
    """Make a roll with triangular onsets at fractional frames, active for 40 frames."""
    roll = np.zeros((n_frames, 128, 3), np.float32)
    frames = np.arange(n_frames)
    for time_, pitch in times:
        roll[:, pitch, 0] = np.maximum(roll[:, pitch, 0], 1 - np.abs(frames - time_) / width)
        roll[:, pitch, 1] = np.maximum(roll[:, pitch, 1], (frames >= time_) & (frames < time_ + 40))
    roll[..., 2] = 0.5
    return np.clip(roll, 0, 1)


def test_peaks_are_refined_between_frames():
    times = [(50.3, 60), (120.8, 60), (51.0, 64), (200.49, 30)]
    notes = decode_roll(blurred(times), 0.4, 0.3, suppression=5, refine=True)
    expected = sorted(times)
    np.testing.assert_allclose(notes[:, 0], [time_ for time_, _ in expected], atol=1e-5)
    np.testing.assert_array_equal(notes[:, 2], [pitch for _, pitch in expected])
    np.testing.assert_array_equal(notes[:, 3], 64)
    coarse = decode_roll(blurred(times), 0.4, 0.3, suppression=5)
    assert np.all(coarse[:, 0] % 1 == 0)
    assert np.all(np.abs(coarse[:, 0] - notes[:, 0]) <= 0.5)


def test_suppression_keeps_the_highest_and_the_first_of_equals():
    roll = np.zeros((60, 128, 3), np.float32)
    roll[:, :, 1] = 1
    roll[[10, 12, 14, 30, 31, 32, 33], 60, 0] = [0.6, 0.9, 0.7, 0.8, 0.8, 0.8, 0.8]
    notes = decode_roll(roll, 0.5, 0.5, suppression=5)
    assert notes[:, 0].tolist() == [12, 30]
    assert notes[:, 1].tolist() == [30, 60]
    assert len(decode_roll(roll, 0.5, 0.5)) == 7
    assert len(decode_roll(roll, 0.95, 0.5)) == 0


def test_min_length_bridges_late_activity():
    roll = np.zeros((40, 128, 3), np.float32)
    roll[10, 60, 0] = 1
    roll[13:20, 60, 1] = 1
    assert decode_roll(roll)[0, :2].tolist() == [10, 11]
    assert decode_roll(roll, min_length=4)[0, :2].tolist() == [10, 20]
    roll[38, 61, 0] = 1
    assert decode_roll(roll, min_length=4)[1, :2].tolist() == [38, 40]


@quick
@given(
    st.integers(0, 2**31),
    st.lists(st.integers(0, 90), max_size=6),
    st.sampled_from([0, 3, 5]),
    st.booleans(),
    st.integers(1, 4),
)
def test_blocks_give_what_the_whole_gives(seed, cuts, suppression, refine, min_length):
    rng = np.random.default_rng(seed)
    roll = np.zeros((90, 128, 3), np.float32)
    roll[:, 60:63] = np.round(rng.random((90, 3, 3)), 1)
    whole = decode_roll(roll, 0.6, 0.4, suppression, min_length, refine)
    blocks = np.split(roll, sorted(cuts))
    decoder = RollDecoder(0.6, 0.4, suppression, min_length, refine)
    for block in blocks:
        decoder.push(block)
    np.testing.assert_array_equal(decoder.close(), whole)
    np.testing.assert_array_equal(tidy(whole), whole)


@quick
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(0, 6))
def test_decoding_agrees_with_the_definition(seed, min_length, suppression):
    rng = np.random.default_rng(seed)
    roll = np.zeros((70, 128, 3), np.float32)
    roll[:, 40:42] = np.round(rng.random((70, 2, 3)), 1)
    expected = []
    for pitch in (40, 41):
        onset, active = roll[:, pitch, 0], roll[:, pitch, 1] >= 0.4
        starts = []
        for t in np.flatnonzero(onset >= 0.6):
            low, high = max(t - suppression, 0), t + suppression + 1
            if onset[t] >= onset[low:high].max() and not np.any(onset[low:t] == onset[t]):
                starts.append(int(t))
        for t, after in zip(starts, [*starts[1:], 70], strict=True):
            end = min(t + min_length, 70)
            while end < 70 and active[end]:
                end += 1
            velocity = np.clip(np.round(np.float64(roll[t, pitch, 2]) * 127), 1, 127)
            expected.append((t, min(end, after), pitch, velocity))
    found = decode_roll(roll, 0.6, 0.4, suppression, min_length)
    np.testing.assert_array_equal(found, np.array(sorted(expected, key=lambda note: (note[0], note[2]))))


def test_three_minutes_are_quick():
    rng = np.random.default_rng(0)
    onsets = rng.uniform(0, 178, 2000)
    seconds = tidy(
        np.column_stack([onsets, onsets + 0.5, rng.integers(21, 109, 2000), np.full(2000, 64)]) * 1.0
    )
    begin = time.process_time()
    notes = decode_roll(frames_roll(seconds, 31_000) * np.float32(0.9), 0.4, 0.3, 5, 3, True)
    assert time.process_time() - begin < 3
    assert len(notes) > 1900
