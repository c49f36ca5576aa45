import numpy as np
import pytest

from mfm_jax.axes import SAMPLE_RATE
from mfm_jax.dsp.level import CEILING, KNEE, TARGET_LUFS, Loudness, limited


def loudness(wave: np.ndarray, block: int = 10_000) -> Loudness:
    meter = Loudness()
    for i in range(0, len(wave), block):
        meter.push(wave[i : i + block])
    return meter


def test_the_standards_test_tone() -> None:
    # BS.1770: a full-scale 997 Hz sine in one channel reads -3.01 LUFS.
    time = np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE
    wave = np.sin(2 * np.pi * 997 * time).astype(np.float32)
    assert loudness(wave).lufs == pytest.approx(-3.01, abs=0.03)
    assert loudness(wave / 10).lufs == pytest.approx(-23.01, abs=0.03)


def test_blocks_do_not_matter_and_pauses_do_not_count() -> None:
    rng = np.random.default_rng(0)
    wave = (0.1 * rng.standard_normal(3 * SAMPLE_RATE)).astype(np.float32)
    whole = loudness(wave, len(wave)).lufs
    assert loudness(wave, 777).lufs == pytest.approx(whole, abs=1e-6)
    assert loudness(np.pad(wave, (0, 20 * SAMPLE_RATE))).lufs == pytest.approx(whole, abs=0.7)


def test_gain_reaches_the_target_and_silence_stays_silent() -> None:
    rng = np.random.default_rng(0)
    wave = (0.05 * rng.standard_normal(3 * SAMPLE_RATE)).astype(np.float32)
    meter = loudness(wave)
    assert loudness(wave * meter.gain).lufs == pytest.approx(TARGET_LUFS, abs=0.01)
    assert loudness(np.zeros(SAMPLE_RATE, np.float32)).gain == 1.0
    assert loudness(np.zeros(0, np.float32)).gain == 1.0


def test_limiting_leaves_quiet_samples_and_never_clips() -> None:
    wave = np.linspace(-3, 3, 1001, dtype=np.float32)
    bent = limited(wave)
    quiet = np.abs(wave) <= KNEE
    np.testing.assert_array_equal(bent[quiet], wave[quiet])
    assert np.abs(bent).max() <= CEILING
    assert (np.diff(bent) >= 0).all()
