"""Discriminators of waves: by scale, by period, by complex spectrum, alone or together.

Scales: MelGAN (Kumar et al. 2019). Periods: HiFi-GAN (Kong et al. 2020). Spectra: the Descript audio codec
(Kumar et al. 2023). Every network gives its scores and the features of its layers, which a generator is asked
to match. RAVE v1 has three scales, v2 scales and periods, v3 periods and spectra: `v1`, `v2`, `v3` give
configs of those kinds.
"""

from itertools import pairwise
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from mfm_jax.axes import Wave
from mfm_jax.config import config
from mfm_jax.dsp.spectral import stft
from mfm_jax.layers.precision import narrow

SLOPE = 0.2  # of the leaky rectifiers
EDGES = (
    0.0,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
)  # bands that a spectrum is read in, as shares of the Nyquist frequency
LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}


@config
class DiscriminatorConfig:
    """Sizes; a family with no members is left out.

    Attributes:
        scales: networks over the wave, each at half the rate of the one before.
        periods: samples that networks by period fold the wave at.
        windows: samples of the Hann windows of networks over spectra; the hop is a quarter.
        capacity: channels of the first layer of networks over waves.
        spectral_capacity: channels of networks over spectra.
        layers: strided convolutions of a network over waves.
        stride: of each.
        kernel: taps of each, by scale.
        period_kernel: and by period.
        growth: factor of channels from layer to layer.
        widest: most channels of a layer.
    """

    scales: int = 3
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    windows: tuple[int, ...] = ()
    capacity: int = 64
    spectral_capacity: int = 32
    layers: int = 4
    stride: int = 4
    kernel: int = 15
    period_kernel: int = 5
    growth: int = 4
    widest: int = 1_024

    def __post_init__(self) -> None:
        """Refuse a discriminator of nothing."""
        if not (self.scales or self.periods or self.windows):
            raise ValueError("discriminator: no scales, periods or windows; give one family at least")
        odd = [size for size in self.windows if size % 4]
        if odd:
            raise ValueError(f"discriminator.windows {odd[0]}: must be a multiple of 4; the hop is a quarter")


def v1(capacity: int = 64) -> DiscriminatorConfig:
    """Give the kind of RAVE v1: three scales."""
    return DiscriminatorConfig(periods=(), capacity=capacity)


def v2(capacity: int = 64) -> DiscriminatorConfig:
    """Give the kind of RAVE v2: three scales and five periods."""
    return DiscriminatorConfig(capacity=capacity)


def v3(capacity: int = 64, spectral_capacity: int = 32) -> DiscriminatorConfig:
    """Give the kind of RAVE v3: five periods and three resolutions of the complex spectrum."""
    return DiscriminatorConfig(
        scales=0, windows=(2_048, 1_024, 512), capacity=capacity, spectral_capacity=spectral_capacity
    )


class Judgement(NamedTuple):
    """What one network says: a score for every place (high for real), and its layers' features in order."""

    scores: Float[Array, "..."]
    features: tuple[Float[Array, "..."], ...]


class NormedConv(nn.Module):
    """Convolution, padded to the length divided by the stride; the kernel's direction and size are apart.

    Weight normalisation: Salimans & Kingma 2016. One or two axes of places, as `size` has entries.
    """

    features: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "B *places C"]) -> Float[Array, "B *fewer D"]:
        """Map [B, *places, C] to [B, *places / stride, features]."""
        shape = (*self.size, x.shape[-1], self.features)
        direction = self.param("direction", nn.initializers.lecun_normal(), shape)
        scale = self.param("scale", nn.initializers.ones, (self.features,))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        axes = tuple(range(direction.ndim - 1))
        length = jnp.sqrt(jnp.sum(direction**2, axis=axes, keepdims=True) + 1e-12)
        last = (1,) * (x.ndim - 1)
        kernel = direction / length * scale.reshape(*last, -1)
        pads = [((k - 1) // 2, k // 2) for k in self.size]
        layout = LAYOUTS[len(self.size)]
        y = lax.conv_general_dilated(narrow(x), narrow(kernel), self.stride, pads, dimension_numbers=layout)
        return y.astype(x.dtype) + bias.reshape(*last, -1)


class WaveNet(nn.Module):
    """Strided convolutions over a sequence [N, T, 1]."""

    config: DiscriminatorConfig
    kernel: int

    @nn.compact
    def __call__(self, x: Float[Array, "N T 1"]) -> Judgement:
        """Judge every sequence at every place that the strides leave."""
        c = self.config
        features = []
        for layer in range(c.layers):
            width = min(c.capacity * c.growth**layer, c.widest)
            x = nn.leaky_relu(NormedConv(width, (self.kernel,), (c.stride,), name=f"down_{layer}")(x), SLOPE)
            features.append(x)
        x = nn.leaky_relu(NormedConv(x.shape[-1], (self.kernel // 3,), (1,), name="mix")(x), SLOPE)
        features.append(x)
        return Judgement(NormedConv(1, (1,), (1,), name="score")(x), tuple(features))


class SpectrumNet(nn.Module):
    """Convolutions over the real and imaginary parts of a spectrum, band by band, then over all bands."""

    config: DiscriminatorConfig
    window: int

    @nn.compact
    def __call__(self, wave: Wave) -> Judgement:
        """Judge every frame in every place of the bands."""
        spectrum = stft(wave, self.window, self.window // 4)
        x = jnp.stack([jnp.real(spectrum), jnp.imag(spectrum)], axis=-1) * (2 / self.window) ** 0.5
        cuts = np.rint(np.array(EDGES) * x.shape[2]).astype(int)
        features, ends = [], []
        for band, (low, high) in enumerate(pairwise(cuts)):
            h = x[:, :, low:high]
            for layer, stride in enumerate((1, 2, 2, 2)):
                conv = NormedConv(
                    self.config.spectral_capacity, (3, 9), (1, stride), name=f"conv_{band}_{layer}"
                )
                h = nn.leaky_relu(conv(h), SLOPE)
                features.append(h)
            ends.append(h)
        whole = jnp.concatenate(ends, axis=2)
        return Judgement(NormedConv(1, (3, 3), (1, 1), name="score")(whole), tuple(features))


class Discriminator(nn.Module):
    """All networks of a config."""

    config: DiscriminatorConfig

    @nn.compact
    def __call__(self, wave: Wave) -> list[Judgement]:
        """Judge waves [B, S]; S is free, a few thousand samples at least."""
        c = self.config
        judged = []
        x = wave[..., None]
        for scale in range(c.scales):
            judged.append(WaveNet(c, c.kernel, name=f"scale_{scale}")(x))
            x = nn.avg_pool(x, (2,), (2,))
        judged += [WaveNet(c, c.period_kernel, name=f"period_{p}")(folded(wave, p)) for p in c.periods]
        judged += [SpectrumNet(c, size, name=f"spectrum_{size}")(wave) for size in c.windows]
        return judged


def folded(wave: Wave, period: int) -> Float[Array, "N T 1"]:
    """Every `period`-th sample as a sequence of its own [B * period, T, 1]; silence fills the end."""
    padded = jnp.pad(wave, ((0, 0), (0, -wave.shape[1] % period)))
    by_phase = jnp.moveaxis(padded.reshape(wave.shape[0], -1, period), 2, 1)
    return by_phase.reshape(-1, by_phase.shape[2], 1)
