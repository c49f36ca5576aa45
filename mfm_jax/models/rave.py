"""RAVE as a VAE of this package: a wave to a mean and deviation a frame, and back; whole or in blocks."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from mfm_jax.axes import Frames, Wave
from mfm_jax.dsp.pqmf import analysis_kernel, blocks_of, filter_bank, synthesis_kernel, turn
from mfm_jax.layers.streams import Index, Past, Span, convolve, waiting
from mfm_jax.models.rave_config import DecoderV1Config, MelConfig, RaveConfig
from mfm_jax.models.rave_decoder import Decoder, DecoderState, decoder_start
from mfm_jax.models.rave_encoder import encoder_layers
from mfm_jax.models.rave_gru import GRUStack
from mfm_jax.models.rave_latent import posterior
from mfm_jax.models.rave_layers import Chain, Pasts, start
from mfm_jax.models.rave_mel import hann, log_mel, mel_filters, reflected

# Positions in a stream count up to this many frames and fall back by half: only the beginning is special.
LAP = 2**13

Sound = Wave | Float[Array, "B C S"]
Rows = Float[Array, "R S"]  # every channel of every sound


class EncodeState(NamedTuple):
    """What a stream remembers between blocks on the way in."""

    bank: Array
    layers: Pasts
    frame: Index


class DecodeState(NamedTuple):
    """What a stream remembers between blocks on the way out."""

    recurrent: Array
    layers: DecoderState
    bank: Array
    frame: Index


class Rave(nn.Module):
    """RAVE: filter bank, encoder, latent, decoder."""

    config: RaveConfig

    def setup(self) -> None:
        """Declare the parts; a converted model brings its filter bank and its principal axes."""
        c = self.config
        if c.source == "bands" or c.banded:
            self.bank = self.param("bank", lambda _: _bank(c))
        if isinstance(c.source, MelConfig):
            source = c.source
            self.window = self.param("window", lambda _: jnp.asarray(hann(source.window)))
            self.filters = self.param("filters", lambda _: jnp.asarray(mel_filters(c.sample_rate, source)))
        self.encoder = Chain(encoder_layers(c), c.causal)
        self.decoder = Decoder(c)
        size = c.latent.size
        self.axes = self.param("axes", lambda _: jnp.eye(size))
        self.center = self.param("center", nn.initializers.zeros, (size,))
        self.fidelity = self.param("fidelity", nn.initializers.zeros, (size,))
        books = (c.latent.codebooks, c.latent.codes, size)
        self.codebooks = self.param("codebooks", nn.initializers.normal(), books) if books[0] else None
        layers = getattr(c.decoder, "recurrent", 0)
        self.recurrent = GRUStack(layers) if layers else None

    @property
    def sample_rate(self) -> int:
        """Samples a second."""
        return self.config.sample_rate

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return self.config.hop

    @property
    def latent_dim(self) -> int:
        """Numbers a frame."""
        return self.config.latent_dim

    def encode(self, wave: Sound) -> tuple[Frames, Frames]:
        """Give the mean and standard deviation [B, F, D] of the latent, F = ceil(S / hop).

        Args:
            wave: [B, S], or [B, channels, S]; a stereo model hears a mono wave on both sides.
        """
        return posterior(self.raw(wave), self.config.latent, self.codebooks)

    def raw(self, wave: Sound) -> Frames:
        """Give what the encoder's last layer does, before it is read as a distribution, vector or codes."""
        flat = self._flat(wave)
        flat = jnp.pad(flat, ((0, 0), (0, -flat.shape[1] % self.config.hop)))
        raw, _, _ = self.encoder(self._read(flat)[0])
        return raw

    def encode_block(
        self, wave: Sound, state: EncodeState, left: Index | int | None = None
    ) -> tuple[tuple[Frames, Frames], EncodeState]:
        """Encode the next block of a stream; as `encode` of the whole, some frames late.

        Args:
            wave: a multiple of `hop` samples; see `context`.
            state: from `encode_start`, or from the block before.
            left: frames from here to the end, once known; feed silence beyond it to get the last ones out.
        """
        source, bank, span = self._read(self._flat(wave), state.bank, self._place(state.frame, left))
        raw, layers, _ = self.encoder(source, state.layers, span)
        after = EncodeState(bank, layers, _next(state.frame, raw.shape[1]))
        return posterior(raw, self.config.latent, self.codebooks), after

    def decode(self, latent: Frames, noise: Sound | None = None) -> Sound:
        """Give the wave [B, F * hop] ([B, channels, F * hop] of a stereo model) of a latent.

        Args:
            latent: [B, F, D]; with `extra` numbers more where the decoder reads noise beside the latent
                (zeros unless given).
            noise: white noise of the wave's shape in -1..1 for the noise branch; None for none.
        """
        latent = self.remember(self._filled(latent), None)[0]
        return self.decode_window(latent, noise)

    def remember(self, latent: Frames, state: Array | None) -> tuple[Frames, Array]:
        """Run the recurrent layers, where a decoder has them: the one part whose memory has no bound."""
        if self.recurrent is None:
            return latent, jnp.zeros((0, *latent.shape[::2]))
        made: tuple[Frames, Array] = self.recurrent(latent, state)
        return made

    def decode_window(self, latent: Frames, noise: Sound | None) -> Sound:
        """Decode what `remember` gave."""
        samples = latent.shape[1] * self.config.hop
        bands = None if noise is None else self._noise(noise)
        parts, _, _ = self.decoder(latent, bands)
        return self._sound(self._write(parts)[0][:, :samples], latent.shape[0])

    def decode_block(
        self, latent: Frames, noise: Sound | None, state: DecodeState, left: Index | int | None = None
    ) -> tuple[Sound, DecodeState]:
        """Decode the next block of a stream: the wave of the whole, some samples late.

        Args:
            latent: [B, F, D], F a multiple of `grain`.
            noise: white noise of the block, as for `decode`.
            state: from `decode_start`, or from the block before.
            left: frames from here to the end, once known; feed zeros beyond it to get the last samples out.
        """
        x, recurrent = self.remember(self._filled(latent), state.recurrent)
        span = self._place(state.frame, left)
        bands = None if noise is None else self._noise(noise)
        made: Any = self.decoder(span.clear(x), bands, state.layers, span)
        parts, layers, span = made
        wave, bank = self._write(parts, state.bank, span)
        after = DecodeState(recurrent, layers, bank, _next(state.frame, latent.shape[1]))
        return self._sound(wave, latent.shape[0]), after

    def __call__(self, wave: Sound) -> Sound:
        """Encode and decode; touches every parameter."""
        return self.decode(self.encode(wave)[0])

    def _flat(self, wave: Sound) -> Rows:
        """Put the channels of [B, C, S] into the batch."""
        channels = self.config.channels
        if wave.ndim == 2:
            wave = jnp.broadcast_to(wave[:, None], (wave.shape[0], channels, wave.shape[1]))
        if wave.shape[1] != channels:
            raise ValueError(f"{wave.shape[1]} channels: this model has {channels}; mix the sound to that")
        return wave.reshape(-1, wave.shape[2])

    def _sound(self, flat: Rows, batch: int) -> Sound:
        return flat if self.config.channels == 1 else flat.reshape(batch, self.config.channels, -1)

    def _stack(self, parts: Float[Array, "B T M"]) -> Float[Array, "B2 T D"]:
        """Put the channels that are in the batch side by side: [B * C, T, M] to [B, T, C * M]."""
        channels = self.config.channels
        if channels == 1:
            return parts
        _, length, bands = parts.shape
        return parts.reshape(-1, channels, length, bands).swapaxes(1, 2).reshape(-1, length, channels * bands)

    def _unstack(self, parts: Float[Array, "B T M"]) -> Float[Array, "B2 T D"]:
        """Undo `_stack`."""
        channels = self.config.channels
        if channels == 1:
            return parts
        batch, length, _ = parts.shape
        return parts.reshape(batch, length, channels, -1).swapaxes(1, 2).reshape(batch * channels, length, -1)

    def _place(self, frame: Index, left: Index | int | None) -> Span:
        """Span in frames of a block of a stream; an end that is not known is far, but safe from overflow."""
        return Span(frame, frame + (2**30 // self.config.hop if left is None else left), 0)

    def _read(
        self, flat: Rows, past: Past = None, place: Span | None = None
    ) -> tuple[Float[Array, "B T D"], Array, Span | None]:
        """Give what the encoder reads; `place` is in frames."""
        c = self.config
        rate = c.hop // c.source_hop
        span = None
        if place is not None:
            span = Span(place.start * rate, place.end * rate, _bank_waits(c)[0][1])
        if isinstance(c.source, MelConfig):
            whole = reflected(flat, c.source) if span is None else flat
            bands = self._stack(log_mel(whole, self.window, self.filters, c.source))
            if span is None:
                return bands[:, : flat.shape[1] // c.source.hop], flat[:, :0], None
            return span.clear(bands), flat[:, :0], span
        if c.source == "wave" or c.bands == 1:
            return self._stack(flat[:, :, None]), flat[:, :0], span
        blocks = blocks_of(flat, c.bands)
        parts, past = convolve(blocks, analysis_kernel(self.bank), _bank_pads(c)[0], past=past)
        parts = self._stack(turn(parts, 0 if span is None else span.first))
        return (parts if span is None else span.clear(parts)), past, span

    def _write(
        self, parts: Float[Array, "B T M"], past: Past = None, span: Span | None = None
    ) -> tuple[Rows, Array]:
        """Join what the decoder wrote to a wave."""
        c = self.config
        parts = self._unstack(parts)
        if not c.banded or c.bands == 1:
            return parts.reshape(parts.shape[0], -1), parts[:, :0]
        turned = turn(parts, 0 if span is None else span.first)
        delay = 0 if span is None else span.delay
        kernel = synthesis_kernel(self.bank)
        wave, past = convolve(turned, kernel, _bank_pads(c)[1], past=past, delay=delay)
        return wave.reshape(wave.shape[0], -1), past

    def _noise(self, noise: Sound) -> Float[Array, "B T M"]:
        """Deal white noise out to the bands."""
        c = self.config
        return self._stack(blocks_of(self._flat(noise), c.bands if c.banded else 1))

    def _filled(self, latent: Frames) -> Float[Array, "B F D2"]:
        """Give the decoder all that it reads."""
        part = self.config.latent
        missing = part.size + part.extra - latent.shape[2]
        if missing not in (0, part.extra):
            raise ValueError(
                f"{latent.shape[2]} numbers a frame: this model takes {part.size}"
                + (f", or {part.size + part.extra} with its noise" if part.extra else "")
            )
        return jnp.pad(latent, ((0, 0), (0, 0), (0, missing)))


def _bank(config: RaveConfig) -> Float[Array, "M n"]:
    """Design the filter bank, cut or filled up around its centre to the taps of the config."""
    bank = jnp.asarray(filter_bank(config.bands, config.attenuation))
    short = (config.taps - bank.shape[1]) // 2
    return lax.pad(bank, 0.0, ((0, 0, 0), (short, short, 0)))


def _next(frame: Index, frames: int) -> Index:
    after = frame + frames
    return jnp.where(after < LAP, after, after - LAP // 2)


def _bank_pads(config: RaveConfig) -> tuple[tuple[int, int], tuple[int, int]]:
    """Zeros before and after the whole, in sub-band samples: of the analysis and of the synthesis."""
    size = config.taps // config.bands
    into = size if config.causal_bank else size // 2
    out = (size - 1 if config.causal_bank else size // 2 - 1) + config.late
    return (into, size - 1 - into), (out, size - 1 - out)


def _bank_waits(config: RaveConfig, decoder: int = 0) -> tuple[tuple[int, int], tuple[int, int]]:
    """What a stream keeps at the filter bank and how late it is after: on the way in and on the way out."""
    into, out = _bank_pads(config)
    reach = config.taps // config.bands - 1
    read = waiting(into[0], reach, 1, 0) if config.source == "bands" and config.bands > 1 else (0, 0)
    write = waiting(out[0], reach, 1, decoder) if config.banded and config.bands > 1 else (0, decoder)
    return read, write


def context(config: RaveConfig) -> int:
    """Count the samples that a block needs beyond its own: those of the first window of a mel spectrogram.

    Such a stream is half of its window ahead: it starts with that much of the wave, reflected, and ends so.
    """
    return config.source.window - config.source.hop if isinstance(config.source, MelConfig) else 0


def encode_start(config: RaveConfig, batch: int) -> tuple[EncodeState, int]:
    """Give the state before the first block of a stream, and by how many frames its latents are late."""
    banked = config.source == "bands" and config.bands > 1
    kept, delay = _bank_waits(config)[0]
    rows, size = batch * config.channels, config.bands
    bank = jnp.zeros((rows, kept, size)) if banked else jnp.zeros((rows, 0))
    width = config.channels * (size if config.source == "bands" else 1)
    if isinstance(config.source, MelConfig):
        width = config.channels * config.source.bands
    layers, late = start(encoder_layers(config), config.causal, width, batch, delay)
    return EncodeState(bank, layers, jnp.zeros((), jnp.int32)), late


def decode_start(config: RaveConfig, batch: int) -> tuple[DecodeState, int]:
    """Give the state before the first block of a stream, and by how many samples its sound is late."""
    layers, delay = decoder_start(config, batch)
    kept, late = _bank_waits(config, delay)[1]
    step = config.bands if config.banded else 1
    bank = jnp.zeros((batch * config.channels, kept, step))
    depth = getattr(config.decoder, "recurrent", 0)
    recurrent = jnp.zeros((depth, batch, config.latent.size + config.latent.extra))
    return DecodeState(recurrent, layers, bank, jnp.zeros((), jnp.int32)), late * step


def grain(config: RaveConfig) -> int:
    """Count the frames of which a block given to `decode_block` must have a multiple."""
    part = config.decoder
    spans = [part.noise.size] if part.noise else []
    spans += [part.loud_stride] if isinstance(part, DecoderV1Config) else []
    frame = config.hop // (config.bands if config.banded else 1)
    return int(np.lcm.reduce([frame, *spans])) // frame


def bank_delay(config: RaveConfig) -> int:
    """Count the samples by which the filter bank, there and back, is late by itself, streamed or not."""
    causal = config.taps // 2 if config.causal_bank else 0
    analysis = causal if config.source == "bands" else 0
    return analysis + (causal + config.late * config.bands if config.banded else 0)
