"""Mel filters and power spectra against their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.dsp.mel import hz_to_mel, mel_filters, mel_to_hz, power_frames


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_the_scales_invert(scale: str) -> None:
    hz = np.array([0.0, 50.0, 999.0, 1_000.0, 1_001.0, 12_000.0])
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz, scale), scale), hz, atol=1e-9)
    assert hz_to_mel(np.array([1_000.0]), "htk")[0] == pytest.approx(1_000.0, rel=1e-3)
    assert hz_to_mel(np.array([1_000.0]), "slaney")[0] == pytest.approx(15.0)


def test_filters_of_unit_height_sum_to_one_inside() -> None:
    total = mel_filters(16_000, 2_048, 20, 100.0, 7_000.0, "htk", False).sum(1)
    hz = np.linspace(0, 8_000, 1_025)
    inside = (hz > 400) & (hz < 6_000)
    np.testing.assert_allclose(total[inside], 1.0, atol=1e-5)
    assert total[hz < 90].max() == 0.0


def test_power_of_a_sinusoid() -> None:
    wave = 0.5 * jnp.cos(2 * jnp.pi * 8 / 64 * jnp.arange(200.0))[None]
    power = np.asarray(power_frames(wave, 64, 10))
    assert power.shape == (1, 14, 33)
    np.testing.assert_allclose(power[0, :, 8], (0.5 * 32 / 2) ** 2, rtol=1e-4)
    assert power_frames(wave, 50, 10, 64).shape == (1, 16, 33)
