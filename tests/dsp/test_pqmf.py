import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.dsp.pqmf import analysis, filter_bank, prototype, synthesis


@pytest.mark.parametrize(
    ("bands", "attenuation", "taps", "least"),
    [(16, 100.0, 377, 58), (16, 70.0, 249, 50), (8, 100.0, 189, 57)],
)
def test_round_trip(bands, attenuation, taps, least):
    wave = np.random.default_rng(0).standard_normal((2, 4_096)).astype(np.float32)
    back = np.asarray(synthesis(analysis(jnp.asarray(wave), bands, attenuation), attenuation))
    inner = slice(1_024, -1_024)
    error = ((back - wave)[:, inner] ** 2).sum()
    assert 10 * np.log10((wave[:, inner] ** 2).sum() / error) > least
    assert len(prototype(bands, attenuation)) == taps
    assert filter_bank(bands, attenuation).shape[0] == bands


@pytest.mark.parametrize("band", [0, 1, 6, 15])
def test_frequency_runs_upwards_in_every_band(band):
    width = 22_050 / 16
    time = np.arange(8_192) / 44_100
    wave = np.sin(2 * np.pi * (band + 0.7) * width * time).astype(np.float32)[None]
    parts = np.asarray(analysis(jnp.asarray(wave), 16))[0]
    assert (parts**2).mean(axis=0).argmax() == band
    assert np.abs(np.fft.rfft(parts[:, band])).argmax() / 256 == pytest.approx(0.7, abs=0.01)


def test_refuses_a_length_that_does_not_divide():
    with pytest.raises(ValueError, match="multiple of 16"):
        analysis(jnp.zeros((1, 100)), 16)
