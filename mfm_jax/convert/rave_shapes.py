"""RAVE's encoder and decoder configs from the shapes of their weights; dilations from gin, or as usual."""

import re
from itertools import pairwise

from mfm_jax.convert.gin import Gin
from mfm_jax.convert.rave_state import State
from mfm_jax.models.rave_config import (
    DecoderV1Config,
    DecoderV2Config,
    EncoderV1Config,
    EncoderV2Config,
    NoiseConfig,
)

Shapes = dict[str, tuple[int, ...]]
UNIT_DILATIONS = (1, 3, 9)  # of the second family, unless told
STACK_DILATIONS = ((1, 1), (3, 1), (5, 1))  # of the first
LEGACY_DILATIONS = ((1, 1), (3, 1), (9, 1))  # and of its first release


def require(shapes: Shapes, *names: str) -> None:
    """Refuse weights that lack an array which every RAVE has."""
    missing = [name for name in names if name not in shapes]
    if missing:
        raise ValueError(f"not a RAVE model: it lacks {', '.join(missing)}")


def _places(shapes: Shapes, stem: str, ending: str) -> list[int]:
    """Give the places in a torch Sequential that hold an array, in order."""
    rule = re.compile(rf"{re.escape(stem)}\.(\d+)\.{ending}")
    return sorted({int(match[1]) for name in shapes if (match := rule.fullmatch(name))})


def encoder(
    shapes: Shapes, stem: str, state: State, gin: Gin | None, assumed: list[str]
) -> EncoderV1Config | EncoderV2Config:
    """Work out the encoder under `stem`."""
    convs = _places(shapes, stem, "weight")
    kernels = [(place, shapes[f"{stem}.{place}.weight"]) for place in convs]
    kernels = [(place, shape) for place, shape in kernels if len(shape) == 3]
    if len(kernels) < 3:
        raise ValueError(
            f"not a RAVE model: {len(kernels)} convolutions under {stem}, there must be 3 or more"
        )
    enter, middle = kernels[0][1], kernels[1:-1]
    units = _places(shapes, stem, r"aligned\.branches\.0\.net\.1\.weight")
    if not units:
        strided = [shape[2] // 2 for _, shape in middle if shape[0] == 2 * shape[1]]
        return EncoderV1Config(
            ratios=tuple(strided),
            capacity=enter[0],
            repeats=len(middle) // max(len(strided), 1),
            sample_norm=not any(name.endswith("running_mean") for name in shapes),
            bias=f"{stem}.0.bias" in shapes,
        )
    ratios = tuple(shape[2] // 2 for _, shape in middle)
    bounds = [0, *(place for place, _ in middle)]
    counts = [sum(low < place < high for place in units) for low, high in pairwise(bounds)]
    growth = [shape[0] // shape[1] for _, shape in middle]
    return EncoderV2Config(
        ratios=ratios,
        capacity=enter[0],
        kernel=enter[2] // 2,
        dilations=_dilations(stem, units, counts, "EncoderV2.dilations", state, gin, assumed),
        keep_dim=growth == list(ratios) and any(step != 2 for step in growth),
        snake=bool(_places(shapes, stem, "alpha")),
        unit_snake=bool(_places(shapes, stem, r"aligned\.branches\.0\.net\.0\.alpha")),
        adain=state.adain,
    )


def _dilations(
    stem: str,
    units: list[int],
    counts: list[int],
    name: str,
    state: State,
    gin: Gin | None,
    assumed: list[str],
    turned: bool = False,
) -> tuple[tuple[int, ...], ...]:
    """Dilations of the units before each stride; `turned` when the file lists them from the other end."""
    pads = [state.pads.get(f"{stem}.{place}.aligned.branches.0.net.1") for place in units]
    order = counts[::-1] if turned else counts
    if pads and all(pads):
        reach = iter(sum(pad or (0, 0)) // 2 for pad in pads)
        found = tuple(tuple(next(reach) for _ in range(count)) for count in counts)
        return found[::-1] if turned else found
    known = gin and gin.get(name)
    if known and counts:
        listed = known if isinstance(known[0], list | tuple) else [known] * len(counts)
        listed = listed[-len(counts) :] if turned else listed[: len(counts)]  # RAVE takes what it needs
        if [len(level) for level in listed] != order:
            raise ValueError(
                f"{gin and gin.path}: {name} = {known} for levels of {order} units; "
                "give the config.gin of this run"
            )
        return tuple(tuple(level) for level in listed)
    assumed.append(f"dilations {UNIT_DILATIONS} of the residual units (weights cannot tell)")
    return tuple(tuple(3**number for number in range(count)) for count in order)


def first_decoder(
    shapes: Shapes, gin: Gin | None, legacy: bool, assumed: list[str]
) -> tuple[DecoderV1Config, int, int]:
    """Work out a decoder of the first family, without its noise; the channels that it writes and reads."""
    require(shapes, "decoder.net.0.weight", "decoder.synth.branches.1.weight")
    places = _places(shapes, "decoder.net", r"net\.1\.weight")
    ups = [shapes[f"decoder.net.{place}.net.1.weight"] for place in places]
    ratios = tuple(1 if shape[2] == 3 else shape[2] // 2 for shape in ups)
    middle = r"net" if legacy else r"net\.branches\.0\.net"
    ending = r"aligned\.branches\.0" if legacy else r"net\.aligned\.branches\.0"
    known = gin and gin.get("ResidualStack.dilations_list")
    first = _places(shapes, f"decoder.net.2.{middle}".replace("\\", ""), rf"{ending}\.1\.weight")
    stem = f"decoder.net.2.{middle}.0.{ending}".replace("\\", "")
    depth = len(_places(shapes, stem, "weight"))
    if known:
        dilations = tuple(tuple(level) for level in known)
    else:
        dilations = LEGACY_DILATIONS if legacy else STACK_DILATIONS
        assumed.append(f"dilations {dilations} of the residual stacks (weights cannot tell)")
    if len(dilations) != len(first) or any(len(level) != depth for level in dilations):
        raise ValueError(
            f"residual stacks of {len(first)} x {depth} convolutions, dilations {dilations} do not fit: "
            "give the config.gin of this run"
        )
    wave, loud = shapes["decoder.synth.branches.0.weight"], shapes["decoder.synth.branches.1.weight"]
    part = DecoderV1Config(
        ratios=ratios,
        capacity=wave[1],
        kernel=shapes[f"{stem}.1.weight"][2],
        dilations=dilations,
        loud_stride=loud[2] // 2,
        noise=None,
        bias="decoder.net.0.bias" in shapes,
    )
    return part, wave[0], shapes["decoder.net.0.weight"][1]


def second_decoder(
    shapes: Shapes, state: State, gin: Gin | None, channels: int, assumed: list[str]
) -> tuple[DecoderV2Config, int, int]:
    """Work out a decoder of the second family, without its noise; the channels that it writes and reads."""
    stem = "decoder.net"
    recurrent = sum(
        re.fullmatch(r"decoder\.net\.0\.gru\.weight_ih_l\d+", name) is not None for name in shapes
    )
    places = _places(shapes, stem, "weight")
    kernels = [shapes[f"{stem}.{place}.weight"] for place in places]
    apart = "decoder.waveform_module.weight" in shapes
    if len(kernels) < (2 if apart else 3):
        raise ValueError(
            f"not a RAVE model: {len(kernels)} convolutions under {stem}, there must be 3 or more"
        )
    ups = kernels[1:] if apart else kernels[1:-1]
    wave = shapes["decoder.waveform_module.weight"] if apart else kernels[-1]
    ratios = tuple(shape[2] // 2 for shape in ups)
    units = _places(shapes, stem, r"aligned\.branches\.0\.net\.1\.weight")
    bounds = [*places[1 : len(ups) + 1], 10**9]
    counts = [sum(low < place < high for place in units) for low, high in pairwise(bounds)]
    shrink = [shape[0] // shape[1] for shape in ups]
    amplitude = wave[0] not in (channels * shapes["pqmf.hk"][0], channels)
    part = DecoderV2Config(
        ratios=ratios[::-1],
        capacity=wave[1],
        kernel=wave[2] // 2,
        dilations=_dilations(stem, units, counts, "GeneratorV2.dilations", state, gin, assumed, turned=True),
        keep_dim=shrink == list(ratios) and any(step != 2 for step in shrink),
        snake=bool(_places(shapes, stem, "alpha")),
        unit_snake=bool(_places(shapes, stem, r"aligned\.branches\.0\.net\.0\.alpha")),
        adain=state.adain,
        amplitude=amplitude,
        recurrent=recurrent,
    )
    inputs = shapes["decoder.net.0.gru.weight_ih_l0"][1] if recurrent else kernels[0][1]
    return part, wave[0] // (2 if amplitude else 1), inputs


def noise(shapes: Shapes, state: State, gin: Gin | None, outputs: int, first: bool) -> NoiseConfig | None:
    """Work out the noise branch beside `outputs` channels."""
    stem = "decoder.synth.branches.2.net" if first else "decoder.noise_module.net"
    places = _places(shapes, stem, "weight")
    if not places:
        return None
    kernels = [shapes[f"{stem}.{place}.weight"] for place in places]
    if first:
        # Kernels of 3 do not tell their strides; their product is in a buffer, and RAVE has them equal.
        ratio = round(state.numbers.get(f"{stem.removesuffix('.net')}.target_size", 64) ** (1 / len(kernels)))
        known = (gin and gin.get("NoiseGenerator.ratios")) or state.facts.get("noise_ratios")
        ratios = tuple(known) if isinstance(known, list) else (ratio,) * len(kernels)
    else:
        ratios = tuple(shape[2] // 2 for shape in kernels)
    return NoiseConfig(
        ratios=ratios,
        spectrum=kernels[-1][0] // outputs,
        hidden=None if first else kernels[0][0],
        snake=bool(_places(shapes, stem, "alpha")),
        heard=not first or bool(state.numbers.get("decoder.warmed_up", 1)),
    )
