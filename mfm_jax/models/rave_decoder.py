"""RAVE's decoders: which layers they are made of, and how their branches make sub-bands."""

from typing import NamedTuple

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


def delay_of(config: RaveConfig) -> tuple[int, int]:
    """Count the samples of the decoder's output by which a stream is late, and how many only align the noise.

    A transposed convolution looks ahead by half its stride, even in a causal model: a stream waits for that.
    """
    late = 0
    part = config.decoder
    for ratio in part.ratios if part.kind == "v1" else part.ratios[::-1]:
        ahead = 0 if ratio == 1 and part.kind == "v1" else ratio // 2
        late = late * ratio + ahead
    grid = 1 if part.noise is None else part.noise.size
    if isinstance(part, DecoderV1Config):
        grid = int(np.lcm(grid, part.loud_stride))
    wait = -late % grid
    return late + wait, wait


class DecoderState(NamedTuple):
    """What a stream remembers of the decoder's layers."""

    body: Pasts
    wait: Array
    wave: Pasts
    loud: Pasts
    noise: Pasts


def decoder_start(config: RaveConfig, batch: int) -> DecoderState:
    """Give the state before the first block."""
    layers = decoder_layers(config)
    width = config.latent.size + config.latent.extra
    last = [layer.width for layer in layers.body if isinstance(layer, Conv | Up)][-1]
    _, wait = delay_of(config)
    return DecoderState(
        start(layers.body, width, batch),
        jnp.zeros((batch, wait, last), jnp.float32),
        *(start(branch, last, batch) for branch in (layers.wave, layers.loud, layers.noise)),
    )


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
            noise: white, in -1..1, as the output: [B, F * hop / bands, bands]; None for none.
            state: of a stream.
            span: where a block of a stream lies.

        Returns:
            The output, the state for the next block, and where the output lies.
        """
        layers = decoder_layers(self.config)
        part = self.config.decoder
        causal = self.config.causal
        pasts = None if state is None else state.body
        x, body, span = Chain(layers.body, causal, name="body")(latent, pasts, span)
        x, waited = delayed(x, delay_of(self.config)[1], None if state is None else state.wait)
        span = span and span.later(delay_of(self.config)[1])
        given = (None, None, None) if state is None else (state.wave, state.loud, state.noise)
        made, wave, _ = Chain(layers.wave, causal, name="wave")(x, given[0], span)
        loud: Pasts = ()
        if isinstance(part, DecoderV1Config):
            level, loud, _ = Chain(layers.loud, causal, name="loud")(x, given[1], span)
            made = jnp.tanh(made) * positive(jnp.repeat(level, part.loud_stride, axis=1)[:, : made.shape[1]])
        elif part.amplitude:
            carrier, amplitude = jnp.split(made, 2, axis=2)
            made = carrier * jax.nn.sigmoid(amplitude)
        hiss: Pasts = ()
        if part.noise is not None and (noise is not None or self.is_initializing()):
            shapes, hiss, _ = Chain(layers.noise, causal, name="noise")(x, given[2], span)
            if noise is not None and part.noise.heard:
                made = made + filtered(noise, positive(shapes - LEVEL_SHIFT), part.noise)[:, : made.shape[1]]
        if isinstance(part, DecoderV2Config):
            made = jnp.tanh(made)
        after = None if state is None else DecoderState(body, waited, wave, loud, hiss)
        return (made if span is None else span.clear(made)), after, span


def positive(x: Array) -> Array:
    """RAVE's map to amplitudes: 2 sigmoid(x)^2.3 + 1e-7."""
    return 2 * jax.nn.sigmoid(x) ** 2.3 + 1e-7
