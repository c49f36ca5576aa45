import numpy as np
import pytest

from mfm_jax.inference.exploration import LEVELS, blend, normalised, vary


def latent(seed: int, ticks: int = 200) -> np.ndarray:
    return normalised(np.random.default_rng(seed).standard_normal((ticks, 64)))


def test_a_blend_starts_at_one_source_and_ends_at_the_other() -> None:
    a, b = latent(0), latent(1, 150)
    np.testing.assert_allclose(blend(a, b, 0.0), a[:150], atol=1e-4)
    np.testing.assert_allclose(blend(a, b, 1.0), b, atol=1e-4)
    middle = blend(a, b, 0.5)
    np.testing.assert_allclose((middle**2).mean(-1), 1, atol=1e-4)
    near = (middle * a[:150]).mean(), (middle * b).mean()
    assert near[0] == pytest.approx(near[1], abs=1e-3)
    np.testing.assert_allclose(blend(a, a, 0.3), a, atol=1e-4)


@pytest.mark.parametrize("level", list(LEVELS))
def test_a_variation_moves_whole_spans_together(level: str) -> None:
    z = np.repeat(latent(0, 1), 400, axis=0)
    moved = vary(z, level, 1.0, np.random.default_rng(0))
    changes = np.flatnonzero(np.abs(np.diff(moved, axis=0)).max(1) > 1e-6) + 1
    assert (changes % LEVELS[level] == 0).all()
    assert len(changes) == (400 - 1) // LEVELS[level]
    np.testing.assert_allclose(vary(z, level, 0.0, np.random.default_rng(0)), z, atol=1e-5)
