"""The `pqmf` front end and head of the VAE: RAVE's family (Caillon & Esling 2021), on sub-bands of the wave.

Strided convolutions lead from the bands' rate to the frame rate and back, dilated residual units between;
the decoder has an amplitude output for each band and a branch of filtered noise. Convolutions are
centred, or look back only when `causal`.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from mfm_jax.axes import Frames, Sequence, Wave
from mfm_jax.config import config
from mfm_jax.dsp.pqmf import analysis, synthesis
from mfm_jax.layers.remat import block
from mfm_jax.placement import EXAMPLES, apart, by_batch

SLOPE = 0.2  # of the leaky rectifiers
LEAST_STD = 1e-4


@config
class PqmfConfig:
    """Sizes of an encoder or a decoder on sub-bands.

    Attributes:
        kind: tells this config from the others.
        bands: sub-bands of the filter bank.
        attenuation: of the filter bank, dB.
        ratios: strides from the bands' rate to the frame rate; bands times their product is the hop.
        capacity: channels at the bands' rate; they double with every stride.
        dilations: of the residual units between strides.
        causal: no convolution sees what comes later.
        noise_bands: of the decoder's noise branch; 0 for none.
        noise_hop: samples of a band between the noise's spectra.
    """

    kind: Literal["pqmf"] = "pqmf"
    bands: int = 16
    attenuation: float = 100.0
    ratios: tuple[int, ...] = (2, 2, 2, 2)
    capacity: int = 64
    dilations: tuple[int, ...] = (1, 3, 9)
    causal: bool = False
    noise_bands: int = 5
    noise_hop: int = 8

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return self.bands * int(np.prod(self.ratios))


class Conv(nn.Module):
    """Convolution over time without bias, padded so that the length is divided by the stride alone."""

    features: int
    size: int
    stride: int = 1
    dilation: int = 1
    causal: bool = False

    @nn.compact
    def __call__(self, x: Sequence) -> Float[Array, "B T2 D2"]:
        """Map [B, T, C] to [B, T / stride, features]."""
        total = (self.size - 1) * self.dilation + 1 - self.stride
        pad = (total, 0) if self.causal else (total - total // 2, total // 2)
        conv = nn.Conv(
            self.features,
            (self.size,),
            self.stride,
            [pad],
            kernel_dilation=self.dilation,
            use_bias=False,
            name="conv",
        )
        return conv(x)


class Upsample(nn.Module):
    """Transposed convolution of twice the stride: [B, T, C] to [B, T * stride, features]."""

    features: int
    stride: int
    causal: bool = False

    @nn.compact
    def __call__(self, x: Sequence) -> Float[Array, "B T2 D2"]:
        """Every output sees two inputs, the later of which lies ahead unless `causal`."""
        before = jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0)))
        pair = jnp.concatenate([before, x], axis=-1)
        y = nn.Dense(self.stride * self.features, use_bias=False, name="taps")(pair)
        y = y.reshape(x.shape[0], -1, self.features)
        shift = 0 if self.causal else self.stride // 2
        return jnp.pad(y[:, shift:], ((0, 0), (0, shift), (0, 0)))


class DilatedUnit(nn.Module):
    """Residual unit: rectifier, dilated convolution over 3, rectifier, projection."""

    dilation: int
    causal: bool

    @nn.compact
    def __call__(self, x: Sequence) -> Sequence:
        """Map [B, T, C] to the same shape."""
        return block(DilatedUnit.inside, self, x)

    def inside(self, x: Sequence) -> Sequence:
        """Compute it."""
        width = x.shape[-1]
        h = Conv(width, 3, dilation=self.dilation, causal=self.causal, name="wide")(_rectify(x))
        return by_batch(x + Conv(width, 1, name="project")(_rectify(h)))


class PqmfEncoder(nn.Module):
    """Wave to the mean and deviation of the latent."""

    config: PqmfConfig
    latent: int

    @nn.compact
    def __call__(self, wave: Wave) -> tuple[Frames, Frames]:
        """Encode [B, S] to mean and standard deviation [B, F, latent], F = ceil(S / hop)."""
        c = self.config
        padded = jnp.pad(wave, ((0, 0), (0, -wave.shape[1] % c.hop)))
        x = Conv(c.capacity, 7, causal=c.causal, name="enter")(analysis(padded, c.bands, c.attenuation))
        for level, ratio in enumerate(c.ratios):
            for dilation in c.dilations:
                x = DilatedUnit(dilation, c.causal, name=f"unit_{level}_{dilation}")(x)
            width = c.capacity * 2 ** (level + 1)
            x = Conv(width, 2 * ratio, ratio, causal=c.causal, name=f"down_{level}")(_rectify(x))
        x = Conv(2 * self.latent, 3, causal=c.causal, name="leave")(_rectify(x))
        mean, spread = jnp.split(x, 2, axis=-1)
        return mean, jax.nn.softplus(spread) + LEAST_STD


class PqmfHead(nn.Module):
    """Latent to wave."""

    config: PqmfConfig

    def __call__(self, latent: Frames, noise: Wave) -> Wave:
        """Decode [B, F, D] to [B, F * hop] with the help of white noise [B, F * hop] in -1..1."""
        return synthesis(self.parts(latent, noise), self.config.attenuation)

    @nn.compact
    def parts(self, latent: Frames, noise: Wave) -> Float[Array, "B T M"]:
        """Decode to the sub-bands [B, F * hop / bands, bands]."""
        c = self.config
        depth = len(c.ratios)
        x = Conv(c.capacity * 2**depth, 3, causal=c.causal, name="enter")(latent)
        for level, ratio in reversed(list(enumerate(c.ratios))):
            x = Upsample(c.capacity * 2**level, ratio, c.causal, name=f"up_{level}")(_rectify(x))
            for dilation in reversed(c.dilations):
                x = DilatedUnit(dilation, c.causal, name=f"unit_{level}_{dilation}")(x)
        x = _rectify(x)
        carrier, amplitude = jnp.split(Conv(2 * c.bands, 7, causal=c.causal, name="wave")(x), 2, axis=-1)
        made = carrier * jax.nn.sigmoid(amplitude)
        if c.noise_bands:
            made = made + self._noise(x, noise.reshape(made.shape))
        return jnp.tanh(made)

    def _noise(self, x: Sequence, noise: Float[Array, "B T M"]) -> Float[Array, "B T M"]:
        """Filter noise in every band by spectra of `noise_bands` points, one every `noise_hop` samples."""
        c = self.config
        h = Conv(c.capacity, 2 * c.noise_hop, c.noise_hop, causal=c.causal, name="noise_enter")(x)
        h = Conv(c.bands * c.noise_bands, 1, name="noise_leave")(_rectify(h))
        batch, count, _ = h.shape
        level = 2 * jax.nn.sigmoid(h - 5).reshape(batch, count, c.bands, c.noise_bands) ** 2.3 + 1e-7
        blocks = noise.reshape(batch, count, c.noise_hop, c.bands).swapaxes(2, 3)
        filtered = apart(_filter_blocks, blocks, level, specs=(EXAMPLES, EXAMPLES), out=EXAMPLES)
        return filtered.swapaxes(2, 3).reshape(noise.shape)


def _filter_blocks(
    blocks: Float[Array, "B T M n"], level: Float[Array, "B T M k"]
) -> Float[Array, "B T M n"]:
    """Convolve every block with the zero-phase response of its spectrum, cut to the block's length."""
    size = blocks.shape[-1]
    response = jnp.fft.irfft(level.astype(jnp.complex64))
    taps = response.shape[-1]
    window = jnp.asarray(np.hanning(taps + 1)[:taps], jnp.float32)
    shaped = jnp.roll(response, taps // 2, axis=-1) * window[None, None, None]
    whole = jnp.fft.rfft(shaped, size + taps) * jnp.fft.rfft(blocks, size + taps)
    return jnp.fft.irfft(whole, size + taps)[..., taps // 2 : taps // 2 + size]


def _rectify(x: Array) -> Array:
    return nn.leaky_relu(x, SLOPE)
