"""The matching and the scores equal mir_eval's on small cases; large ones fit in memory."""

import resource
import time

import mir_eval
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm_jax.evaluation import note_scores as scores
from mfm_jax.evaluation.matching import ONSET, ONSET_OFFSET, Tolerance, match
from mfm_jax.music.notes import Notes

TIMES = st.integers(0, 60).map(lambda k: k * 0.0125)  # a grid on which tolerances are often met exactly
NOTE = st.tuples(TIMES, st.integers(1, 40), st.integers(60, 63), st.integers(1, 127)).map(
    lambda n: (n[0], n[0] + n[1] * 0.0125, float(n[2]), float(n[3]))
)
NOTES = st.lists(NOTE, min_size=1, max_size=14).map(lambda rows: np.array(rows, np.float64))


def intervals_and_hertz(notes: Notes) -> tuple[np.ndarray, np.ndarray]:
    return notes[:, :2], 440.0 * 2.0 ** ((notes[:, 2] - 69) / 12)


def mir_eval_scores(ref: Notes, est: Notes, **options: float | None) -> tuple[float, ...]:
    return mir_eval.transcription.precision_recall_f1_overlap(
        *intervals_and_hertz(ref), *intervals_and_hertz(est), **options
    )


@settings(max_examples=100, deadline=None)
@given(NOTES, NOTES)
def test_note_scores_equal_mir_eval(ref: Notes, est: Notes) -> None:
    for tolerance, options in (
        (ONSET, {"offset_ratio": None}),
        (ONSET_OFFSET, {}),
        (Tolerance(0.2), {"offset_ratio": None, "onset_tolerance": 0.2}),
    ):
        ours = scores.counted(ref, est, match(ref, est, tolerance))
        wanted = mir_eval_scores(ref, est, **options)
        np.testing.assert_allclose((ours.precision, ours.recall, ours.f1), wanted[:3], atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-6, 6), st.integers(1, 127)), min_size=2, max_size=14), st.randoms())
def test_overlap_and_velocity_equal_mir_eval(shifts: list[tuple[int, int]], random: object) -> None:
    """Where every note has one possible partner, so that there is one matching."""
    ref = np.array([(k * 1.0, k + 0.4, 60.0 + k % 5, 20.0 + 7 * k) for k in range(len(shifts))])
    est = np.array([(n[0] + s / 100, n[1] + s / 50, n[2], float(v)) for n, (s, v) in zip(ref, shifts)])
    est[:, 0] = np.maximum(est[:, 0], 0.0)
    for tolerance, options in ((ONSET, {"offset_ratio": None}), (ONSET_OFFSET, {})):
        pairs = match(ref, est, tolerance)
        assert scores.overlap(ref, est, pairs) == pytest.approx(mir_eval_scores(ref, est, **options)[3])
        wanted = mir_eval.transcription_velocity.precision_recall_f1_overlap(
            *intervals_and_hertz(ref), ref[:, 3], *intervals_and_hertz(est), est[:, 3], **options
        )
        kept = scores.counted(ref, est, scores.same_velocity(ref, est, pairs))
        assert kept.f1 == pytest.approx(wanted[2])


@settings(max_examples=20, deadline=None)
@given(NOTES, NOTES)
def test_frames_equal_mir_eval(ref: Notes, est: Notes) -> None:
    times = np.arange(200) * scores.HOP

    def sounding(notes: Notes) -> list[np.ndarray]:
        rows = [(notes[:, 0] <= t + 1e-9) & (notes[:, 1] > t + 1e-9) for t in times]
        return [np.unique(440.0 * 2.0 ** ((notes[row, 2] - 69) / 12)) for row in rows]

    ours = scores.frames(ref, est)
    if ours.pitch.reference == 0 or ours.pitch.estimate == 0:
        return
    wanted = mir_eval.multipitch.metrics(times, sounding(ref), times, sounding(est))
    np.testing.assert_allclose((ours.pitch.precision, ours.pitch.recall, ours.pitch.accuracy), wanted[:3])
    np.testing.assert_allclose(ours.octave_error_rate, wanted[9] - wanted[2], atol=1e-12)


@given(NOTES, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_order_of_notes_does_not_matter(notes: Notes, random: object) -> None:
    turned = notes[::-1] + np.array([0.02, 0.01, 0.0, 0.0])
    ours, mixed = match(notes, turned, ONSET_OFFSET), match(notes[::-1], turned, ONSET_OFFSET)
    assert len(ours) == len(mixed)
    same = scores.overlap(notes, turned, ours), scores.overlap(notes[::-1], turned, mixed)
    assert same[0] == pytest.approx(same[1], abs=1e-12)


def test_greedy_matching_would_miss_a_pair() -> None:
    """Two references compete for an estimate that only one of them needs."""
    ref = np.array([[0.0, 1.0, 60, 64], [0.06, 1.0, 60, 64]])
    est = np.array([[0.04, 1.0, 60, 64], [0.10, 1.0, 60, 64]])
    assert match(ref, est).tolist() == [[0, 0], [1, 1]]


def test_notes_in_milliseconds_are_refused_before_memory_is_full() -> None:
    crowd = np.tile([[0.0, 1.0, 60.0, 64.0]], (4_200, 1))
    with pytest.raises(ValueError, match="must be seconds"):
        match(crowd, crowd)


def test_octave_errors_are_counted_once() -> None:
    ref = np.array([[k, k + 0.5, 60.0, 64.0] for k in range(4)])
    est = ref + np.array([0.01, 0.0, 0.0, 0.0])
    est[1, 2] += 12
    est[2, 2] += 7
    assert scores.octave_errors(ref, est) == 1
    assert scores.frames(ref, est).octave_error_rate > 0


@pytest.mark.parametrize(
    ("note", "words"),
    [
        ((0.0, 1.0, 440.5, 64.0), "Hz"),
        ((0.0, 1.0, 440.0, 64.0), "Hz"),
        ((1.0, 0.5, 60.0, 64.0), "must begin at 0 or later"),
        ((np.nan, 1.0, 60.0, 64.0), "NaN"),
    ],
)
def test_bad_notes_are_named(note: tuple[float, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        scores.check_pitches(np.array([note]))


def test_empty_sides_have_documented_scores() -> None:
    nothing, one = np.zeros((0, 4)), np.array([[0.0, 1.0, 60.0, 64.0]])
    assert scores.counted(nothing, nothing, match(nothing, nothing)).f1 == 1.0
    for ref, est in ((nothing, one), (one, nothing)):
        counts = scores.counted(ref, est, match(ref, est))
        assert (counts.precision, counts.recall, counts.f1) == (0.0, 0.0, 0.0)
    assert scores.frames(nothing, nothing).pitch.f1 == 1.0


@pytest.mark.slow
def test_a_hundred_thousand_notes() -> None:
    rng = np.random.default_rng(0)
    n = 100_000
    onset = np.sort(rng.uniform(0, 10_000, n))
    ref = np.column_stack(
        [onset, onset + rng.uniform(0.05, 2, n), rng.integers(21, 109, n), rng.integers(1, 128, n)]
    )
    est = ref + np.column_stack([rng.normal(0, 0.03, (n, 2)), np.zeros((n, 2))])
    est[:, 0] = np.maximum(est[:, 0], 0)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    f1 = scores.counted(ref, est, match(ref, est, ONSET_OFFSET)).f1
    scores.frames(ref, est)
    assert time.process_time() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB
    assert 0.7 < f1 < 0.95
