"""Distances of embeddings: against known Gaussians, and for order, batches and singular covariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm_jax.evaluation.frechet import fad_infinity, frechet, kernel_distance
from mfm_jax.evaluation.moments import BLOCK, Gathering, Moments, moments


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    return Moments(1001, mean, covariance * 1000.0)


def songs(
    rng: np.random.Generator, n_songs: int, shift: float, n: int = 50, d: int = 128
) -> list[np.ndarray]:
    return [rng.standard_normal((n, d)) + shift for _ in range(n_songs)]


def test_known_gaussians() -> None:
    """Commuting covariances have the closed form sum((sqrt a - sqrt b)^2)."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((32, 32)))[0]
    a, b = rng.uniform(0.1, 4, (2, 32))
    means = rng.standard_normal((2, 32))
    known = ((means[0] - means[1]) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    found = frechet(
        gaussian(means[0], turn @ np.diag(a) @ turn.T), gaussian(means[1], turn @ np.diag(b) @ turn.T)
    )
    assert found == pytest.approx(known, rel=1e-10)


def test_samples_of_known_gaussians_within_one_per_cent() -> None:
    rng = np.random.default_rng(1)
    a = rng.standard_normal((60_000, 8))
    b = 2.0 * rng.standard_normal((60_000, 8)) + 0.5
    assert frechet(moments(a), moments(b)) == pytest.approx(8 * (0.25 + 1.0), rel=0.01)


def test_equal_sets_are_at_zero_and_singular_ones_stay_real() -> None:
    rng = np.random.default_rng(2)
    few = moments(rng.standard_normal((5, 64)))
    assert frechet(few, few) == 0.0
    flat = moments(np.concatenate([rng.standard_normal((40, 8)), np.zeros((40, 56))], 1))
    assert frechet(flat, few) >= 0.0
    assert frechet(flat, few) == pytest.approx(frechet(few, flat), rel=1e-9)


def test_one_frame_is_refused() -> None:
    one = moments(np.ones((1, 4)))
    with pytest.raises(ValueError, match="at least 2"):
        frechet(one, moments(np.random.default_rng(0).standard_normal((9, 4))))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 3 * BLOCK), max_size=6))
def test_batches_change_no_bit(cuts: list[int]) -> None:
    frames = np.random.default_rng(3).standard_normal((3 * BLOCK, 5)).astype(np.float32) + 1e3
    gathering = Gathering(5)
    for part in np.split(frames, sorted(cuts)):
        gathering.add(part)
    whole, split = moments(frames), gathering.moments()
    assert whole.n == split.n
    assert whole.mean.tobytes() == split.mean.tobytes()
    assert whole.scatter.tobytes() == split.scatter.tobytes()
    np.testing.assert_allclose(whole.covariance, np.cov(frames.astype(np.float64), rowvar=False), rtol=1e-9)


@pytest.mark.parametrize(
    ("d", "n", "shift"), [(16, 20, 0.08**0.5), pytest.param(128, 50, 0.1, marks=pytest.mark.slow)]
)
def test_fad_infinity_on_the_toy_case(d: int, n: int, shift: float) -> None:
    """True distance 1.28; plain FAD of these frames is a good deal more."""
    rng = np.random.default_rng(0)
    ref, gen = songs(rng, 400, 0.0, n, d), songs(rng, 100, shift, n, d)
    plain = frechet(moments(np.concatenate(ref)), moments(np.concatenate(gen)))
    limit = fad_infinity(ref, gen, seed=0, resamples=8)
    assert plain > (2.2 if d == 128 else 1.33)
    assert limit.value == pytest.approx(1.28, abs=0.15)
    assert limit.r2 > 0.9
    assert limit.low is not None
    assert limit.high is not None
    assert limit.low < limit.value < limit.high
    assert fad_infinity(ref, gen, seed=0, resamples=0).value == limit.value  # seeded


def test_too_little_for_the_limit_is_said() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="at least 4 songs"):
        fad_infinity(songs(rng, 3, 0.0), songs(rng, 3, 0.0))


def test_kernel_distance_is_unbiased_and_its_width_the_references() -> None:
    rng = np.random.default_rng(4)
    same = [
        kernel_distance(rng.standard_normal((40, 4)), rng.standard_normal((30, 4))).value for _ in range(60)
    ]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(60)
    assert min(same) < 0  # an unbiased estimate of 0 must fall below it at times
    reference = rng.standard_normal((200, 4))
    near, far = (kernel_distance(reference, reference[::-1] + shift) for shift in (0.2, 3.0))
    assert near.bandwidth == far.bandwidth
    assert far.value > 10 * near.value > 0
    with pytest.raises(ValueError, match="all alike"):
        kernel_distance(np.ones((5, 2)), np.ones((5, 2)))


@pytest.mark.slow
def test_the_interval_covers_the_truth() -> None:
    hits = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        sides = songs(rng, 40, 0.0, 20, 4), songs(rng, 40, 0.2, 20, 4)
        limit = fad_infinity(sides[0], sides[1], seed, resamples=20)
        assert limit.low is not None
        assert limit.high is not None
        hits += limit.low <= 4 * 0.04 <= limit.high
    assert hits >= 7  # 95 % of 10 is 9.5
