import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.dsp.logfreq import N_BANDS, band_hz, decimate, log_frequency, onset_band_hz

TIME = np.arange(32_768) / 44_100
MIDDLE = 64  # frame
analyse = jax.jit(log_frequency)


def sinusoid(hz, amplitude=0.5, phase=0.0):
    return (amplitude * np.sin(2 * np.pi * hz * TIME + phase)).astype(np.float32)[None]


def test_shapes_and_band_of_a_pitch():
    assert band_hz().shape == (N_BANDS,)
    assert band_hz()[2 * (69 - 21)] == pytest.approx(440.0)
    assert onset_band_hz().shape == (46,)
    assert analyse(jnp.zeros((2, 1_000))).shape == (2, 4, 256)


@pytest.mark.parametrize("pitch", [24, 33, 48, 57, 64, 69, 76, 81, 88, 96, 108])
def test_a_pitch_peaks_in_its_band_at_its_level(pitch):
    hz = 440.0 * 2 ** ((pitch - 69) / 12)
    bands = np.asarray(analyse(jnp.asarray(sinusoid(hz))))[0, MIDDLE]
    assert bands[:N_BANDS].argmax() == 2 * (pitch - 21)
    assert bands[:N_BANDS].max() == pytest.approx(np.log(0.5), abs=0.12)


def test_there_is_no_phase():
    bands = [np.asarray(analyse(jnp.asarray(sinusoid(440.0, phase=p))))[0, MIDDLE] for p in (0.0, 1.0, 2.5)]
    near = slice(90, 102)
    np.testing.assert_allclose(bands[0][near], bands[1][near], atol=0.02)
    np.testing.assert_allclose(bands[0][near], bands[2][near], atol=0.02)


def test_gain_adds_the_same_everywhere():
    wave = np.random.default_rng(0).standard_normal((1, 16_384)).astype(np.float32) * 0.1
    quiet, loud = analyse(jnp.asarray(wave)), analyse(jnp.asarray(4 * wave))
    np.testing.assert_allclose(loud - quiet, np.log(4), atol=0.01)


def test_semitones_of_the_bass_are_told_apart():
    a, b = 440 * 2 ** ((45 - 69) / 12), 440 * 2 ** ((48 - 69) / 12)
    bands = np.asarray(analyse(jnp.asarray(sinusoid(a, 0.3) + sinusoid(b, 0.3))))[0, MIDDLE]
    valley = bands[2 * (45 - 21) + 3]
    assert bands[2 * (45 - 21)] > valley + 0.5
    assert bands[2 * (48 - 21)] > valley + 0.5


def test_decimation_keeps_what_it_should_and_no_more():
    kept = np.asarray(decimate(jnp.asarray(sinusoid(900.0)), 16))[0, 200:-200]
    wanted = sinusoid(900.0)[0, ::16][200:-200]
    np.testing.assert_allclose(kept, wanted, atol=2e-3)
    assert np.abs(np.asarray(decimate(jnp.asarray(sinusoid(2_000.0)), 16))[0, 200:-200]).max() < 2e-3


def test_a_window_of_a_long_wave_equals_the_whole():
    wave = np.random.default_rng(1).standard_normal((1, 256 * 192)).astype(np.float32) * 0.1
    whole = analyse(jnp.asarray(wave))
    part = analyse(jnp.asarray(wave[:, 256 * 64 : 256 * 192]))
    np.testing.assert_allclose(part[:, 32:64], whole[:, 96:128], atol=1e-3)
