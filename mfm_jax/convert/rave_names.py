"""What RAVE calls every weight of a config, and how its arrays are laid out there and here."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from mfm_jax.models.rave_config import DecoderV1Config, EncoderV2Config, MelConfig, RaveConfig
from mfm_jax.models.rave_decoder import decoder_layers
from mfm_jax.models.rave_encoder import encoder_layers
from mfm_jax.models.rave_layers import Activation, Conv, Layer, Norm, Residual, Up

Change = Callable[[np.ndarray], np.ndarray]


class Entry(NamedTuple):
    """One array: its path here, its name in RAVE, and the change of layout both ways."""

    path: str
    name: str
    here: Change
    back: Change


def entries(config: RaveConfig, legacy: bool) -> Iterator[Entry]:
    """List every array of a model.

    Args:
        config: the model.
        legacy: named as in RAVE's first release.
    """
    if config.source == "bands" or config.banded:
        yield _plain("bank", "pqmf.hk")
    for path, name in (("axes", "latent_pca"), ("center", "latent_mean"), ("fidelity", "fidelity")):
        yield _plain(path, name)
    if isinstance(config.source, MelConfig):
        yield _plain("window", "spectrogram.spectrogram.window")
        yield _plain("filters", "spectrogram.mel_scale.fb")
    for level in range(config.latent.codebooks):
        yield _plain(f"codebooks/{level}", f"encoder.rvq.layers.{level}._codebook.embed")
    prefix = "encoder.net" if legacy else "encoder.encoder.net"
    adain = isinstance(config.encoder, EncoderV2Config) and config.encoder.adain
    yield from _sequence(encoder_layers(config), "encoder", prefix, adain)
    if isinstance(config.decoder, DecoderV1Config):
        yield from _first(config, legacy)
    else:
        yield from _second(config)


def _first(config: RaveConfig, legacy: bool) -> Iterator[Entry]:
    layers = decoder_layers(config)
    place = -1  # in the decoder's list: the first convolution, then an upsampling and a stack in turn
    for layer in layers.body:
        match layer:
            case Conv(name="enter"):
                place += 1
                yield from _array(layer, layer.name, "decoder/body", f"decoder.net.{place}")
            case Conv() | Up():
                place += 1 if place == 0 else 2
                yield from _array(layer, layer.name, "decoder/body", f"decoder.net.{place}.net.1")
            case Residual():
                number = layer.name.rsplit("_", 1)[1]
                middle = f"net.{number}" if legacy else f"net.branches.0.net.{number}.net"
                stem = f"decoder.net.{place + 1}.{middle}.aligned.branches.0"
                yield from _inner(layer, "decoder/body", stem)
    yield from _array(layers.wave[0], "wave", "decoder/wave", "decoder.synth.branches.0")
    yield from _array(layers.loud[0], "loud", "decoder/loud", "decoder.synth.branches.1")
    yield from _sequence(layers.noise, "decoder/noise", "decoder.synth.branches.2.net", False)


def _second(config: RaveConfig) -> Iterator[Entry]:
    part = config.decoder
    assert not isinstance(part, DecoderV1Config)
    layers = decoder_layers(config)
    shift = 1 if part.recurrent else 0
    for layer in range(part.recurrent):
        for ours, theirs in (("inward", "weight_ih"), ("around", "weight_hh")):
            yield Entry(
                f"recurrent/{ours}_{layer}",
                f"decoder.net.0.gru.{theirs}_l{layer}",
                np.transpose,
                np.transpose,
            )
            bias = theirs.replace("weight", "bias")
            yield _plain(f"recurrent/{ours}_bias_{layer}", f"decoder.net.0.gru.{bias}_l{layer}")
    yield from _sequence(layers.body, "decoder/body", "decoder.net", part.adain, shift)
    count = len(layers.body) + shift
    count += sum(isinstance(layer, Residual) for layer in layers.body) if part.adain else 0
    head = "decoder.waveform_module" if part.noise else f"decoder.net.{count}"
    yield from _array(layers.wave[0], "wave", "decoder/wave", head)
    yield from _sequence(layers.noise, "decoder/noise", "decoder.noise_module.net", False)


def _sequence(
    layers: tuple[Layer, ...], path: str, stem: str, adain: bool, place: int = 0
) -> Iterator[Entry]:
    """Name the arrays of a torch Sequential; every layer has a place there, and so has instance norm."""
    for layer in layers:
        place += 1 if adain and isinstance(layer, Residual) else 0
        if isinstance(layer, Residual):
            yield from _inner(layer, path, f"{stem}.{place}.aligned.branches.0.net")
        else:
            yield from _array(layer, layer.name, path, f"{stem}.{place}")
        place += 1


def _inner(layer: Residual, path: str, stem: str) -> Iterator[Entry]:
    for place, part in enumerate(layer.inner):
        name = f"{layer.name}_{part.name}" if part.name else ""
        yield from _array(part, name, path, f"{stem}.{place}")


def _array(layer: Layer, name: str, path: str, stem: str) -> Iterator[Entry]:
    match layer:
        case Conv():
            yield Entry(f"{path}/{name}_kernel", f"{stem}.weight", _conv_here, _conv_back)
        case Up(stride=stride):
            yield Entry(f"{path}/{name}_kernel", f"{stem}.weight", _up_here, lambda a: _up_back(a, stride))
        case Norm() if layer.name:
            pairs = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
            for ours, theirs in pairs.items():
                yield _plain(f"{path}/{name}_{ours}", f"{stem}.{theirs}")
        case Activation() if layer.name:
            yield Entry(f"{path}/{name}_alpha", f"{stem}.alpha", lambda a: a[:, 0], lambda a: a[:, None])
    if isinstance(layer, Conv | Up) and layer.bias:
        yield _plain(f"{path}/{name}_bias", f"{stem}.bias")


def _plain(path: str, name: str) -> Entry:
    return Entry(path, name, _same, _same)


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _conv_here(array: np.ndarray) -> np.ndarray:
    """[out, in, size] -> [size, in, out]."""
    return array.transpose(2, 1, 0)


def _conv_back(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 1, 0)


def _up_here(array: np.ndarray) -> np.ndarray:
    """[in, out, 2 * stride] -> [2, in, stride * out]: later taps first, as they meet the earlier input."""
    into, out, size = array.shape
    halves = array.transpose(2, 0, 1).reshape(2, size // 2, into, out)[::-1]
    return halves.transpose(0, 2, 1, 3).reshape(2, into, -1)


def _up_back(array: np.ndarray, stride: int) -> np.ndarray:
    _, into, width = array.shape
    halves = array.reshape(2, into, stride, width // stride).transpose(0, 2, 1, 3)[::-1]
    return halves.reshape(2 * stride, into, -1).transpose(1, 2, 0)
