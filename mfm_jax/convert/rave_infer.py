"""The whole config of a RAVE file: from shapes, and what these cannot tell from gin, the file or the user."""

from typing import Any, NamedTuple

import numpy as np

from mfm_jax.convert import rave_shapes
from mfm_jax.convert.gin import Gin
from mfm_jax.convert.rave_shapes import Shapes
from mfm_jax.convert.rave_state import State
from mfm_jax.models.rave_config import DecoderV1Config, DecoderV2Config, LatentConfig, MelConfig, RaveConfig

RATES = (4_000, 384_000)  # Hz


class Told(NamedTuple):
    """What the caller knows beside the file."""

    gin: Gin | None = None
    causal: bool = False
    sample_rate: int | None = None
    late: bool = True


class Inferred(NamedTuple):
    """A config, whether the file has the names of RAVE's first release, and the assumptions made."""

    config: RaveConfig
    legacy: bool
    assumed: list[str]


def infer(state: State, told: Told) -> Inferred:
    """Work out the config of a file.

    Raises:
        ValueError: not a RAVE, a config of another one, or a sample rate that is not known.
    """
    shapes = {name: array.shape for name, array in state.arrays.items()}
    rave_shapes.require(shapes, "latent_pca", "latent_mean", "fidelity", "pqmf.hk")
    assumed: list[str] = []
    legacy = "encoder.net.0.weight" in shapes
    stem = "encoder.net" if legacy else "encoder.encoder.net"
    encoder = rave_shapes.encoder(shapes, stem, state, told.gin, assumed)
    read = shapes.get("spectrogram.mel_scale.fb", shapes["pqmf.hk"][::-1])[1]
    channels = max(1, shapes[f"{stem}.0.weight"][1] // read)
    first = "decoder.synth.branches.0.weight" in shapes
    decoder: DecoderV1Config | DecoderV2Config
    if first:
        decoder, outputs, inputs = rave_shapes.first_decoder(shapes, told.gin, legacy, assumed)
    else:
        decoder, outputs, inputs = rave_shapes.second_decoder(shapes, state, told.gin, channels, assumed)
    noise = rave_shapes.noise(shapes, state, told.gin, outputs, first)
    bands, taps = shapes["pqmf.hk"]
    source, banded = _ends(shapes, stem, state, encoder.ratios, decoder.ratios)
    causal = _causal(state, told, assumed)
    config = RaveConfig(
        sample_rate=_sample_rate(state, told),
        channels=channels,
        bands=bands,
        taps=taps,
        late=int(told.late and "pqmf.inverse_conv.weight" in shapes),
        causal=causal,
        centred_bank=legacy and causal,
        source=source,
        banded=banded,
        encoder=encoder,
        latent=_latent(shapes, stem, inputs, state, told, assumed),
        decoder=type(decoder)(**(vars(decoder) | {"noise": noise})),
    )
    if outputs != channels * (bands if banded else 1):
        raise ValueError(
            f"the encoder reads {channels} channel(s), the decoder writes {outputs} bands: no RAVE"
        )
    return Inferred(config, legacy, list(dict.fromkeys(assumed)))


def _ends(
    shapes: Shapes, stem: str, state: State, down: tuple[int, ...], up: tuple[int, ...]
) -> tuple[Any, bool]:
    """Give what the encoder reads, and whether the decoder writes sub-bands."""
    bands = shapes["pqmf.hk"][0]
    inputs = shapes[f"{stem}.0.weight"][1]
    read, written = int(np.prod(down)), int(np.prod(up))
    if "spectrogram.mel_scale.fb" in shapes:
        points, mels = shapes["spectrogram.mel_scale.fb"]
        banded = state.facts.get("output_mode", "pqmf") == "pqmf"
        hop = written * (bands if banded else 1) // read
        return MelConfig(window=2 * (points - 1), hop=hop, bands=mels), banded
    source = "bands" if inputs % bands == 0 else "wave"
    return source, written * bands == read * (bands if source == "bands" else 1)


def _latent(
    shapes: Shapes, stem: str, inputs: int, state: State, told: Told, assumed: list[str]
) -> LatentConfig:
    size = shapes["latent_pca"][0]
    last = max((name for name in shapes if name.startswith(stem)), key=_place)
    outputs = shapes[f"{stem}.{_place(last)}.weight"][0]
    books = [name for name in shapes if name.endswith("_codebook.embed")]
    named = str(told.gin.get("RAVE.encoder", "")) if told.gin else ""
    kind: Any = "variational"
    if books:
        kind = "discrete"
    elif outputs == size:
        # Only the unit-length encoder has no switch for the second phase.
        plain = "Spherical" in named if named else "encoder.warmed_up" not in state.numbers
        kind = "spherical" if plain else "wasserstein"
        if not named:
            assumed.append(f"a {kind} latent (one number for each dimension)")
    elif outputs != 2 * size:
        raise ValueError(
            f"the encoder gives {outputs} numbers for a latent of {size}: not a known kind of RAVE"
        )
    if inputs < size:
        raise ValueError(f"the decoder reads {inputs} of {size} latent numbers: not a known kind of RAVE")
    return LatentConfig(
        kind=kind,
        size=size,
        extra=inputs - size,
        codebooks=len(books),
        codes=shapes[books[0]][0] if books else 0,
        quantised=bool(state.numbers.get("encoder.enabled", 1)) if books else False,
    )


def _place(name: str) -> int:
    """Place in a torch Sequential of an array that lies right in it; -1 for others."""
    *_, place, end = name.split(".")
    return int(place) if end == "weight" and place.isdigit() and ".aligned." not in name else -1


def _causal(state: State, told: Told, assumed: list[str]) -> bool:
    bank = state.pads.get("pqmf.forward_conv")
    if bank is not None:
        found = bank[1] == 0
    elif told.gin is not None and (mode := told.gin.get("get_padding.mode")):
        found = mode == "causal"
    elif "no_latency" in state.facts:
        found = bool(state.facts["no_latency"])
    else:
        if not told.causal:
            assumed.append("centred convolutions (weights cannot tell; --causal if it was trained causal)")
        return told.causal
    if told.causal and not found:
        raise ValueError("--causal: its config says that it is centred; leave --causal out")
    return found


def _sample_rate(state: State, told: Told) -> int:
    known = (told.gin and told.gin.get("RAVE.sampling_rate")) or state.facts.get("sr")
    rate = told.sample_rate or known
    if rate is None:
        raise ValueError("its sample rate is nowhere to be found: give --sample-rate, or --config config.gin")
    if not isinstance(rate, int) or not RATES[0] <= rate <= RATES[1]:
        raise ValueError(f"sample rate {rate}: must be a whole number from {RATES[0]} to {RATES[1]} Hz")
    return rate
