"""Configs of RAVE's two families (Caillon & Esling 2021, arXiv 2111.05011, and the later v2)."""

from typing import Literal

import numpy as np

from mfm_jax.config import config

Dilations = tuple[tuple[int, ...], ...]


@config
class EncoderV1Config:
    """Strided convolutions with batch norm.

    Attributes:
        kind: tells this config from the others.
        ratios: strides.
        capacity: channels before the first stride; they double with each.
        repeats: convolutions at every rate; all but the first keep it.
        sample_norm: divide by the length of the channel vector instead of batch norm.
        bias: in the convolutions (files of RAVE's first release).
    """

    kind: Literal["v1"] = "v1"
    ratios: tuple[int, ...] = (4, 4, 4, 2)
    capacity: int = 64
    repeats: int = 1
    sample_norm: bool = False
    bias: bool = False


@config
class EncoderV2Config:
    """Strided convolutions with dilated residual units between.

    Attributes:
        kind: tells this config from the others.
        ratios: strides.
        capacity: channels before the first stride.
        kernel: taps of the units; the first convolution has twice as many and one.
        dilations: of the units before each stride.
        keep_dim: channels grow by the stride instead of doubling.
        snake: learned periodic activations between the units.
        unit_snake: and within them.
        adain: the file has buffers for adaptive instance norm, which do nothing.
    """

    kind: Literal["v2"] = "v2"
    ratios: tuple[int, ...] = (4, 4, 4, 2)
    capacity: int = 96
    kernel: int = 3
    dilations: Dilations = ((1, 3, 9), (1, 3, 9), (1, 3, 9), (1, 3))
    keep_dim: bool = False
    snake: bool = False
    unit_snake: bool = False
    adain: bool = False


@config
class NoiseConfig:
    """The decoder's branch of filtered noise.

    Attributes:
        ratios: strides from the bands' rate to that of the noise's spectra.
        spectrum: points of each spectrum.
        hidden: channels within; None for as many as come in.
        snake: learned periodic activations.
        heard: whether the branch is added to the sound (the first family adds it in its second phase only).
    """

    ratios: tuple[int, ...] = (4, 4, 4)
    spectrum: int = 5
    hidden: int | None = None
    snake: bool = False
    heard: bool = True

    @property
    def size(self) -> int:
        """Sub-band samples between spectra."""
        return int(np.prod(self.ratios))


@config
class DecoderV1Config:
    """Transposed convolutions with residual stacks; a wave, its loudness and noise are added up.

    Attributes:
        kind: tells this config from the others.
        ratios: strides, first to last.
        capacity: channels after the last stride.
        kernel: taps in the residual stacks.
        dilations: of the convolutions of each layer of a stack.
        loud_stride: samples for which one loudness stands.
        noise: the noise branch.
        bias: in the first convolution and in the branches (files of RAVE's first release).
    """

    kind: Literal["v1"] = "v1"
    ratios: tuple[int, ...] = (4, 4, 4, 2)
    capacity: int = 64
    kernel: int = 3
    dilations: Dilations = ((1, 1), (3, 1), (5, 1))
    loud_stride: int = 1
    noise: NoiseConfig | None = NoiseConfig()
    bias: bool = False


@config
class DecoderV2Config:
    """The encoder of the second family turned around, with an amplitude for every band.

    Attributes: as `EncoderV2Config`, in the encoder's order, and
        amplitude: the carrier is multiplied by a learned amplitude.
        noise: the noise branch.
        recurrent: layers of gated recurrent units over the latent.
    """

    kind: Literal["v2"] = "v2"
    ratios: tuple[int, ...] = (4, 4, 4, 2)
    capacity: int = 96
    kernel: int = 3
    dilations: Dilations = ((1, 3, 9), (1, 3, 9), (1, 3, 9), (1, 3))
    keep_dim: bool = False
    snake: bool = False
    unit_snake: bool = False
    adain: bool = False
    amplitude: bool = True
    noise: NoiseConfig | None = None
    recurrent: int = 0


@config
class MelConfig:
    """Mel spectrogram as the encoder's input."""

    window: int = 2_048
    hop: int = 256
    bands: int = 128


@config
class LatentConfig:
    """What the encoder's output means.

    Attributes:
        kind: mean and scale; a plain vector; one of unit length; or a sum of codes.
        size: numbers a frame.
        extra: numbers that the decoder reads beside them, of noise in RAVE.
        codebooks: of the residual quantiser.
        codes: in every codebook.
        quantised: whether the quantiser is on.
    """

    kind: Literal["variational", "wasserstein", "spherical", "discrete"] = "variational"
    size: int = 128
    extra: int = 0
    codebooks: int = 0
    codes: int = 0
    quantised: bool = False


@config
class RaveConfig:
    """A RAVE model.

    Attributes:
        kind: tells this config from those of other VAEs.
        sample_rate: Hz.
        channels: of the sound.
        bands: sub-bands of each channel.
        taps: length of the filters of the bank.
        attenuation: dB, of the bank of a model that is not converted.
        late: sub-band samples by which the synthesis is late: 1 in RAVE, 0 to take that delay out.
        causal: convolutions and filters look back only.
        centred_bank: but not the filter bank (RAVE's first release).
        source: what the encoder reads: sub-bands, a mel spectrogram or the wave.
        banded: the decoder writes sub-bands, not the wave.
        encoder: from the source to frames.
        latent: what a frame is.
        decoder: from frames to sub-bands or the wave.
    """

    kind: Literal["rave"] = "rave"
    sample_rate: int = 44_100
    channels: int = 1
    bands: int = 16
    taps: int = 512
    attenuation: float = 100.0
    late: int = 1
    causal: bool = False
    centred_bank: bool = False
    source: Literal["bands", "wave"] | MelConfig = "bands"
    banded: bool = True
    encoder: EncoderV1Config | EncoderV2Config = EncoderV2Config()
    latent: LatentConfig = LatentConfig()
    decoder: DecoderV1Config | DecoderV2Config = DecoderV2Config()

    def __post_init__(self) -> None:
        """Refuse parts of different rates."""
        read = self.source_hop * int(np.prod(self.encoder.ratios))
        if read != self.hop:
            raise ValueError(
                f"a frame of the encoder is {read} samples, of the decoder {self.hop}: "
                f"change the ratios {self.encoder.ratios} or {self.decoder.ratios}"
            )
        if self.taps % (2 * self.bands):
            raise ValueError(f"taps {self.taps}: must be a multiple of twice the {self.bands} bands")

    @property
    def causal_bank(self) -> bool:
        """Whether the filter bank looks back only."""
        return self.causal and not self.centred_bank

    @property
    def source_hop(self) -> int:
        """Samples between what the encoder reads."""
        if isinstance(self.source, MelConfig):
            return self.source.hop
        return self.bands if self.source == "bands" else 1

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return (self.bands if self.banded else 1) * int(np.prod(self.decoder.ratios))

    @property
    def latent_dim(self) -> int:
        """Numbers a frame."""
        return self.latent.size
