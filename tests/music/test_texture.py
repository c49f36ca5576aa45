import numpy as np

from mfm_jax.music.texture import texture, together


def test_figures_of_a_scale():
    pitches = [60, 62, 64, 65, 67, 69, 71, 72]
    notes = np.array([[12.0 * n, 12.0 * n + 6, pitch, 80] for n, pitch in enumerate(pitches)])
    found = texture(notes, 8)
    assert found.figures() == {"notes_a_beat": 1.0, "polyphony": 1.0, "in_scale": 1.0}
    assert found.intervals[11] == 7
    assert found.durations[5] == 8


def test_chords_and_wrong_notes():
    chord = np.array([[0.0, 24, pitch, 80] for pitch in (60, 61, 62, 63)])
    figures = texture(chord, 4).figures()
    assert figures["polyphony"] == 4
    assert figures["in_scale"] < 1


def test_bodies_of_music_add_up_and_compare():
    slow = texture(np.array([[0.0, 12, 60, 80], [12, 24, 62, 80]]), 2)
    fast = texture(np.array([[0.0, 3, 60, 80], [3, 6, 62, 80]]), 2)
    assert together([slow, fast]).figures()["notes_a_beat"] == 1
    assert slow.overlap(slow) == {"interval_overlap": 1.0, "duration_overlap": 1.0}
    assert slow.overlap(fast) == {"interval_overlap": 0.0, "duration_overlap": 0.0}


def test_nothing_is_measured_without_complaint():
    assert texture(np.zeros((0, 4)), 4).figures()["polyphony"] == 0
