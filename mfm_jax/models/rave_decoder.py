"""RAVE's decoders: which layers they are made of, and how their branches make sub-bands."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from mfm_jax.axes import Sequence
from mfm_jax.layers.streams import Span, delayed
from mfm_jax.models.rave_config import DecoderV1Config, DecoderV2Config, RaveConfig
from mfm_jax.models.rave_encoder import snake, unit
from mfm_jax.models.rave_layers import Activation, Chain, Conv, Layer, Pasts, Residual, Up, start
from mfm_jax.models.rave_noise import filtered

LEVEL_SHIFT = 5.0  # the noise is quiet at first


class Branches(NamedTuple):
    """The layers of a decoder: the body, then what reads its output side by side."""

    body: tuple[Layer, ...]
    wave: tuple[Layer, ...]
    loud: tuple[Layer, ...] = ()
    noise: tuple[Layer, ...] = ()


def decoder_layers(config: RaveConfig) -> Branches:
    """List the layers from the latent to sub-bands (or to the wave)."""
    outputs = config.channels * (config.bands if config.banded else 1)
    part = config.decoder
    if isinstance(part, DecoderV1Config):
        return _first(part, outputs)
    return _second(part, outputs)


def _first(part: DecoderV1Config, outputs: int) -> Branches:
    width = part.capacity * 2 ** len(part.ratios)
    body: list[Layer] = [Conv("enter", width, 7, bias=part.bias)]
    for level, ratio in enumerate(part.ratios):
        width //= 2
        name = f"up_{level}"
        body += [Activation(), Up(name, width, ratio) if ratio > 1 else Conv(name, width, 3)]
        for number, dilations in enumerate(part.dilations):
            inner: list[Conv | Activation] = []
            for again, dilation in enumerate(dilations):
                inner += [Activation(), Conv(f"conv_{again}", width, part.kernel, dilation=dilation)]
            body.append(Residual(f"unit_{level}_{number}", tuple(inner)))
    stride = part.loud_stride
    noise: list[Layer] = []
    if part.noise is not None:
        widths = [part.noise.hidden or width] * (len(part.noise.ratios) - 1)
        for number, (ratio, size) in enumerate(
            zip(part.noise.ratios, [*widths, outputs * part.noise.spectrum])
        ):
            noise += [Activation()] if number else []
            noise.append(Conv(f"conv_{number}", size, 3, ratio, bias=part.bias))
    return Branches(
        tuple(body),
        (Conv("wave", outputs, 7, bias=part.bias),),
        (Conv("loud", 1, 2 * stride + 1, stride, bias=part.bias),),
        tuple(noise),
    )


def _second(part: DecoderV2Config, outputs: int) -> Branches:
    ratios, levels = part.ratios[::-1], part.dilations[::-1]
    width = part.capacity * (int(np.prod(ratios)) if part.keep_dim else 2 ** len(ratios))
    body: list[Layer] = [Conv("enter", width, part.kernel)]
    for level, (ratio, dilations) in enumerate(zip(ratios, levels, strict=True)):
        body.append(snake(f"snake_{level}", part.snake))
        width //= ratio if part.keep_dim else 2
        body.append(Up(f"up_{level}", width, ratio))
        for number, dilation in enumerate(dilations):
            name = f"unit_{level}_{number}"
            body.append(unit(name, width, part.kernel, dilation, part.unit_snake))
    body.append(snake("snake_last", part.snake))
    noise: list[Layer] = []
    if part.noise is not None:
        widths = [part.noise.hidden or width] * (len(part.noise.ratios) - 1)
        for number, (ratio, size) in enumerate(
            zip(part.noise.ratios, [*widths, outputs * part.noise.spectrum])
        ):
            noise += [snake(f"snake_{number - 1}", part.noise.snake)] if number else []
            noise.append(Conv(f"conv_{number}", size, 2 * ratio, ratio, pads=(ratio, 0)))
    wave = Conv("wave", outputs * (2 if part.amplitude else 1), 2 * part.kernel + 1)
    return Branches(tuple(body), (wave,), (), tuple(noise))


class DecoderState(NamedTuple):
    """What a stream remembers of the decoder's layers; the branches wait for the latest of them."""

    body: Pasts
    wave: Pasts
    loud: Pasts
    noise: Pasts
    late_wave: Array
    late_loud: Array
    late_noise: Array
    white: Array  # the noise itself waits for its spectra


def decoder_start(config: RaveConfig, batch: int) -> tuple[DecoderState, int]:
    """Give the state before the first block of a stream, and by how many samples its output is late.

    A transposed convolution looks ahead by half its stride, so even a causal model is late.
    """
    layers, causal, part = decoder_layers(config), config.causal, config.decoder
    width = config.latent.size + config.latent.extra
    body, delay = start(layers.body, causal, width, batch)
    last = [layer.width for layer in layers.body if isinstance(layer, Conv | Up)][-1]
    wave, wave_delay = start(layers.wave, causal, last, batch, delay)
    loud, loud_delay = start(layers.loud, causal, last, batch, delay)
    noise, noise_delay = start(layers.noise, causal, last, batch, delay)
    loud_delay *= part.loud_stride if isinstance(part, DecoderV1Config) else 0
    noise_delay *= part.noise.size if part.noise else 0
    late = max(wave_delay, loud_delay, noise_delay)
    out = layers.wave[0].width if isinstance(layers.wave[0], Conv) else 0
    outputs = config.channels * (config.bands if config.banded else 1)
    lates = ((late - wave_delay, out), (late - loud_delay, 1), (late - noise_delay, outputs))
    held = (*lates, (noise_delay, outputs))
    zeros = [jnp.zeros((batch, length, size), jnp.float32) for length, size in held]
    return DecoderState(body, wave, loud, noise, *zeros), late


class Decoder(nn.Module):
    """From latents to sub-bands (or to the wave, as one band)."""

    config: RaveConfig

    @nn.compact
    def __call__(
        self,
        latent: Sequence,
        noise: Float[Array, "B T2 M"] | None,
        state: DecoderState | None = None,
        span: Span | None = None,
    ) -> tuple[Float[Array, "B T3 M"], DecoderState | None, Span | None]:
        """Decode.

        Args:
            latent: [B, F, D].
            noise: white, in -1..1, of the block: [B, F * hop / bands, bands]; None for none.
            state: of a stream.
            span: where a block of a stream lies.

        Returns:
            The output, the state for the next block, and where the output lies.
        """
        layers, part = decoder_layers(self.config), self.config.decoder
        given: Any = (None,) * 8 if state is None else state

        def branch(name: str, x: Sequence, pasts: Pasts | None, span: Span | None) -> Any:
            return Chain(getattr(layers, name), self.config.causal, name=name)(x, pasts, span)

        x, body, span = branch("body", latent, given[0], span)
        carried, wave, _ = branch("wave", x, given[1], span)
        carried, late_wave = delayed(carried, given[4])
        loud, late_loud = given[2], given[5]
        if isinstance(part, DecoderV1Config):
            level, loud, _ = branch("loud", x, given[2], span)
            level, late_loud = delayed(jnp.repeat(level, part.loud_stride, axis=1), given[5])
            made = jnp.tanh(carried) * positive(level[:, : carried.shape[1]])
        elif part.amplitude:
            carrier, amplitude = jnp.split(carried, 2, axis=2)
            made = carrier * jax.nn.sigmoid(amplitude)
        else:
            made = carried
        _, _, _, hiss, _, _, late_noise, white = given
        if part.noise is not None and (noise is not None or self.is_initializing()):
            shapes, hiss, _ = branch("noise", x, hiss, span)
            if noise is not None and part.noise.heard:
                noise, white = delayed(noise, white)
                added = filtered(noise, positive(shapes - LEVEL_SHIFT), part.noise)
                added, late_noise = delayed(added, late_noise)
                short = max(0, made.shape[1] - added.shape[1])  # strides that do not divide the whole
                made = made + jnp.pad(added, ((0, 0), (0, short), (0, 0)))[:, : made.shape[1]]
        if isinstance(part, DecoderV2Config):
            made = jnp.tanh(made)
        if state is None or span is None:
            return made, None, None
        after = DecoderState(body, wave, loud, hiss, late_wave, late_loud, late_noise, white)
        span = span._replace(delay=decoder_start(self.config, 1)[1])
        return span.clear(made), after, span


def positive(x: Array) -> Array:
    """RAVE's map to amplitudes: 2 sigmoid(x)^2.3 + 1e-7."""
    return 2 * jax.nn.sigmoid(x) ** 2.3 + 1e-7
