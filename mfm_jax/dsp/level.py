"""Loudness of a stream (ITU-R BS.1770-4) and the gain that brings it to a common level without clipping."""

import numpy as np
import scipy.signal

from mfm_jax.axes import SAMPLE_RATE

TARGET_LUFS = -16.0  # what streaming services and podcasts play
KNEE, CEILING = (
    0.85,
    0.99,
)  # amplitude: below the knee nothing changes, above it samples bend towards the ceiling
MAX_GAIN = 10.0  # 20 dB: near-silence stays near-silence
_BLOCK, _STEP = int(0.4 * SAMPLE_RATE), int(0.1 * SAMPLE_RATE)


def _k_weighting() -> np.ndarray:
    """Give the standard's shelf and high-pass as second-order sections, derived for our rate."""
    gain, frequency, q = 3.999843853973347, 1681.974450955533, 0.7071752369554196
    k = np.tan(np.pi * frequency / SAMPLE_RATE)
    high = 10 ** (gain / 20)
    band = high**0.4996667741545416
    norm = 1 + k / q + k * k
    shelf = [
        (high + band * k / q + k * k) / norm,
        2 * (k * k - high) / norm,
        (high - band * k / q + k * k) / norm,
    ]
    shelf += [1, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm]
    frequency, q = 38.13547087602444, 0.5003270373238773
    k = np.tan(np.pi * frequency / SAMPLE_RATE)
    norm = 1 + k / q + k * k
    cut = [1, -2, 1, 1, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm]
    return np.array([shelf, cut])


class Loudness:
    """Integrated loudness of mono audio that arrives in blocks."""

    def __init__(self) -> None:
        self._sections = _k_weighting()
        self._state = np.zeros((2, 2))
        self._rest = np.zeros(0)
        self._powers: list[np.ndarray] = []
        self.peak = 0.0

    def push(self, block: np.ndarray) -> None:
        """Add samples."""
        if not len(block):
            return
        self.peak = max(self.peak, float(np.abs(block).max()))
        weighted, self._state = scipy.signal.sosfilt(self._sections, block.astype(np.float64), zi=self._state)
        power = np.concatenate([self._rest, weighted**2])
        steps = len(power) // _STEP
        self._powers.append(power[: steps * _STEP].reshape(steps, _STEP).mean(axis=1))
        self._rest = power[steps * _STEP :]

    @property
    def lufs(self) -> float:
        """Gated loudness so far; -inf for silence."""
        powers = np.concatenate([*self._powers, np.zeros(0)])
        if not len(powers):
            powers = np.array([self._rest.mean() if len(self._rest) else 0.0])
        width = min(_BLOCK // _STEP, len(powers))
        blocks = np.convolve(powers, np.ones(width) / width, "valid")
        loud = blocks[blocks > 10 ** ((-70 + 0.691) / 10)]
        if not len(loud):
            return -np.inf
        loud = loud[loud > loud.mean() / 10]
        return float(-0.691 + 10 * np.log10(loud.mean()))

    @property
    def gain(self) -> float:
        """Factor that brings the stream to `TARGET_LUFS`."""
        return float(min(10 ** ((TARGET_LUFS - self.lufs) / 20), MAX_GAIN)) if self.lufs > -np.inf else 1.0


def limited(block: np.ndarray, gain: float = 1.0) -> np.ndarray:
    """Apply a gain and bend peaks below full scale, each sample alone: equal input, equal output."""
    scaled = block.astype(np.float32) * np.float32(gain)
    over = np.abs(scaled) > KNEE
    if over.any():
        room = CEILING - KNEE
        bent = KNEE + room * np.tanh((np.abs(scaled[over]) - KNEE) / room)
        scaled[over] = np.sign(scaled[over]) * bent.astype(np.float32)
    return scaled
