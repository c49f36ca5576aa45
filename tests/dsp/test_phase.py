import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.dsp.logfreq import N_BANDS, log_frequency
from mfm_jax.dsp.phase import PhaseState, initial_state, reconstruct, start_phases, white_noise
from mfm_jax.dsp.spectral import log_magnitudes

WINDOW = 2_048
RATE = 44_100
started = jax.jit(start_phases)
finished = jax.jit(reconstruct, static_argnums=(2, 3))


def chord(seconds=0.6):
    time = np.arange(int(seconds * RATE) // 256 * 256) / RATE
    wave = sum(0.15 * np.sin(2 * np.pi * hz * time) for hz in (130.8, 164.8, 392.0, 1_046.5, 4_186.0))
    return jnp.asarray(wave.astype(np.float32)[None])


@jax.jit
def spectra(wave):
    return log_frequency(wave)[..., :N_BANDS], log_magnitudes(wave, WINDOW)


def noise_for(logs, first=0):
    return white_noise(jax.random.key(0), first, logs.shape[1])[None]


def test_sinusoids_run_on_without_griffin_lim():
    wave = chord()
    bands, logs = spectra(wave)
    phases, _ = started(bands, logs, noise_for(logs), initial_state(1, WINDOW))
    made = np.asarray(finished(logs, phases, 0, 0))[0, 8_192:16_384]
    wanted = np.asarray(wave)[0, 8_192:16_384]
    shapes = [np.abs(np.fft.rfft(x * np.hanning(8_192))) for x in (made, wanted)]
    for hz in (130.8, 164.8, 392.0, 1_046.5, 4_186.0):
        k = round(hz * 8_192 / RATE)
        ours, theirs = (shape[k - 2 : k + 3].max() for shape in shapes)
        assert ours == pytest.approx(theirs, rel=0.25)


def test_griffin_lim_comes_closer():
    wave = chord(0.4) + 0.01 * white_noise(jax.random.key(1), 0, int(0.4 * RATE) // 256)[None]
    bands, logs = spectra(wave)
    phases, _ = started(bands, logs, noise_for(logs), initial_state(1, WINDOW))
    errors = []
    for steps in (0, 8):
        made = finished(logs, phases, min(steps, 2), steps)
        errors.append(float(jnp.abs(log_magnitudes(made, WINDOW) - logs)[:, 8:-8].mean()))
    assert errors[1] < errors[0]


def test_phases_carry_over_windows():
    bands, logs = spectra(chord(0.4))
    whole, states = started(bands, logs, noise_for(logs), initial_state(1, WINDOW))
    cut = 32
    state = PhaseState(states.bands[:, cut - 1], states.bins[:, cut - 1])
    rest, _ = started(bands[:, cut:], logs[:, cut:], noise_for(logs)[:, cut * 256 :], state)
    # Frames beside the cut: the noise's spectrum and the change of frequency see beyond it.
    difference = np.abs(np.asarray(rest[:, 6:, :200]) - np.asarray(whole[:, cut + 6 :, :200]))
    assert np.median(difference) < 1e-3


def test_noise_of_a_frame_does_not_depend_on_the_window():
    key = jax.random.key(3)
    np.testing.assert_array_equal(white_noise(key, 0, 8)[5 * 256 :], white_noise(key, 5, 3))


def test_batch_rows_do_not_mix():
    bands, logs = spectra(chord(0.2))
    both = jnp.concatenate([bands, bands - 1]), jnp.concatenate([logs, logs - 1])
    noise = jnp.concatenate([noise_for(logs)] * 2)
    one, _ = started(bands, logs, noise_for(logs), initial_state(1, WINDOW))
    two, _ = started(*both, noise, initial_state(2, WINDOW))
    np.testing.assert_allclose(two[:1], one, atol=1e-4)
