"""RAVE checkpoints and exports to a VAE of this package, and back to RAVE's names."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from mfm_jax.axes import Params
from mfm_jax.checkpoint import flatten, load_weights, save_weights, unflatten
from mfm_jax.config import build, to_dict
from mfm_jax.convert.gin import Gin
from mfm_jax.convert.rave_infer import Inferred, Told, infer
from mfm_jax.convert.rave_names import Entry, entries
from mfm_jax.convert.rave_state import State, read_state
from mfm_jax.models.rave import Rave
from mfm_jax.models.rave_config import DecoderV1Config, RaveConfig
from mfm_jax.music.files import replacing

NAME = "vae.safetensors"
BACK_NAME = "rave.safetensors"
BANK_ERROR = 1e-5  # how far the two copies of the filter bank in a file may differ
WEIGHT_NORM = ("decoder.", "encoder.")


def convert(
    file: Path,
    out: Path,
    config: Path | None = None,
    causal: bool = False,
    sample_rate: int | None = None,
    averaged: bool = False,
    late: bool = True,
) -> list[str]:
    """Convert a checkpoint (.ckpt) or an export (.ts) to `out/vae.safetensors`.

    Args:
        file: what RAVE wrote.
        out: folder, made if need be.
        config: config.gin; one that lies beside the file, or up to two folders above, is found.
        causal: what the weights cannot tell when there is no config.
        sample_rate: likewise.
        averaged: use the moving average of the weights.
        late: keep the 16 samples by which RAVE's synthesis is late.

    Returns:
        What was inferred, assumed and ignored, in lines.

    Raises:
        ValueError: not a RAVE that can be read; nothing is written then.
    """
    state = read_state(file, averaged)
    found = config or _beside(file)
    gin = None if found is None else Gin(found)
    try:
        inferred = infer(state, Told(gin, causal, sample_rate, late))
        params = arrange(state, inferred)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    except (LookupError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"{file}: its layers are not those of a RAVE ({error!r})") from None
    lines = [f"config: {found or 'none found; inferred from the weights'}", *describe(inferred.config)]
    lines += [f"assumed: {text}" for text in inferred.assumed] + state.report
    if not params["fidelity"].any():
        lines.append("warning: fidelity is all zeros: never validated before its second phase, axes unsorted")
    cropped = state.facts.get("cropped_latent_size")
    meta = {"from": file.name, "legacy": inferred.legacy, "cropped": cropped or 0}
    save_weights(out / NAME, params, to_dict(inferred.config), meta)
    return [*lines, str(out / NAME)]


def _beside(file: Path) -> Path | None:
    """Find config.gin where a run of RAVE has it."""
    folders = list(file.absolute().parents)[:4]
    return next((path for folder in folders if (path := folder / "config.gin").is_file()), None)


def arrange(state: State, inferred: Inferred) -> Params:
    """Lay weights out as the module wants them.

    Raises:
        ValueError: lists what is missing, left over or of a wrong shape.
    """
    wanted = list(entries(inferred.config, inferred.legacy))
    missing = [entry.name for entry in wanted if entry.name not in state.arrays]
    used = {entry.name for entry in wanted} | set(_copies(inferred.config))
    extra = [name for name in state.arrays if name not in used]
    if missing or extra:
        raise ValueError(f"missing: {_listed(missing)}; extra: {_listed(extra)}; is this its config?")
    params = unflatten(
        {entry.path: np.ascontiguousarray(entry.here(state.arrays[entry.name])) for entry in wanted}
    )
    if inferred.config.latent.codebooks:
        books = params["codebooks"]
        params["codebooks"] = np.stack([books[str(level)] for level in range(len(books))])
    _check_shapes(params, inferred.config)
    for name, copy in _copies(inferred.config).items():
        if name in state.arrays and np.abs(copy(params["bank"]) - state.arrays[name]).max() > BANK_ERROR:
            raise ValueError(f"{name} is no copy of pqmf.hk: its filter bank was changed by hand")
    return params


def _copies(config: RaveConfig) -> dict[str, Any]:
    """What a file holds twice: how to make it from the filter bank."""

    def forward(bank: np.ndarray) -> np.ndarray:
        return np.pad(bank, ((0, 0), (0, 1)))[:, None]

    def inverse(bank: np.ndarray) -> np.ndarray:
        bands = bank.shape[0]
        turned = bank[:, ::-1].reshape(bands, -1, bands).transpose(2, 0, 1)
        return np.pad(turned, ((0, 0), (0, 0), (0, 1 - turned.shape[2] % 2)))

    def prototype(bank: np.ndarray) -> float:
        return np.nan  # of which the bank was made; nothing to compare

    return {
        "pqmf.forward_conv.weight": forward,
        "pqmf.inverse_conv.weight": inverse,
        "pqmf.h": prototype,
    }


def _check_shapes(params: Params, config: RaveConfig) -> None:
    module = Rave(config)
    samples = config.hop * 2 ** (config.taps.bit_length() + 2)
    wave = jax.ShapeDtypeStruct((1, config.channels, samples), np.float32)
    wanted = flatten(jax.eval_shape(module.init, jax.random.key(0), wave)["params"])
    given = flatten(params)
    wrong = [
        f"{name} {given[name].shape if name in given else 'is missing'}, must be {value.shape}"
        for name, value in wanted.items()
        if name not in given or given[name].shape != value.shape
    ]
    wrong += [f"{name} is left over" for name in given if name not in wanted]
    if wrong:
        raise ValueError(f"weights do not fit together: {_listed(wrong)}")


def _listed(items: list[str], most: int = 6) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return (", ".join(items[:most]) + more) or "none"


def describe(config: RaveConfig) -> list[str]:
    """Say in lines what a model is."""
    encoder, decoder, latent = config.encoder, config.decoder, config.latent
    source = config.source if isinstance(config.source, str) else f"mel spectrogram {config.source.bands}"
    noise = decoder.noise
    hiss = "none" if noise is None else f"{noise.spectrum} points every {noise.size} sub-band samples"
    if noise is not None and not noise.heard:
        hiss += " (silent: of the first phase)"
    snake = getattr(decoder, "snake", False) or getattr(decoder, "unit_snake", False)
    return [
        f"encoder {encoder.kind}: from {source}, capacity {encoder.capacity}, ratios {list(encoder.ratios)}",
        f"decoder {decoder.kind}: capacity {decoder.capacity}, ratios {list(decoder.ratios)}, noise {hiss}"
        + (", learned activations" if snake else ""),
        f"latent: {latent.kind}, {latent.size} numbers"
        + (f" and {latent.extra} of noise" if latent.extra else "")
        + (f", {latent.codebooks} books of {latent.codes} codes" if latent.codebooks else "")
        + f", a frame every {config.hop} samples at {config.sample_rate} Hz",
        f"{'causal' if config.causal else 'centred'}, channels {config.channels}, "
        f"filter bank of {config.bands} bands and {config.taps} taps",
    ]


def back(folder: Path, out: Path) -> Path:
    """Write a converted model as `out/rave.safetensors` under RAVE's names, weight norm split again.

    Load it in RAVE with `load_state_dict(safetensors.torch.load_file(...), strict=False)`: what is missing
    then is the discriminator.

    Raises:
        ValueError: not a converted RAVE.
    """
    path = folder / NAME if folder.is_dir() else folder
    params, told, meta = load_weights(path)
    if told.get("kind") != "rave":
        raise ValueError(f"{path}: not a converted RAVE; give a folder that mfm convert rave wrote")
    arrays = to_rave(params, build(RaveConfig, told), bool(meta.get("legacy")))
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / BACK_NAME) as temporary:
        save_file(arrays, temporary)
    return out / BACK_NAME


def to_rave(params: Params, config: RaveConfig, legacy: bool = False) -> dict[str, np.ndarray]:
    """Name weights as RAVE's state dict does; the inverse of `arrange`."""
    flat = {name: np.asarray(value) for name, value in flatten(params).items()}
    if "codebooks" in flat:
        flat |= {f"codebooks/{level}": book for level, book in enumerate(flat.pop("codebooks"))}
    named: dict[str, np.ndarray] = {}
    for entry in entries(config, legacy):
        array = np.ascontiguousarray(entry.back(flat[entry.path]))
        if _normed(entry, config):
            length = np.sqrt(np.sum(array**2, axis=tuple(range(1, array.ndim)), keepdims=True))
            stem = entry.name.removesuffix("weight")
            named |= {f"{stem}weight_g": length, f"{stem}weight_v": array}
        else:
            named[entry.name] = array
    if "bank" in flat:
        for name, copy in _copies(config).items():
            if name != "pqmf.h":
                named[name] = np.ascontiguousarray(copy(flat["bank"]), np.float32)
    return named | _switches(config)


def _switches(config: RaveConfig) -> dict[str, np.ndarray]:
    """Give the switches of RAVE without which its own code would leave a part of the model off."""
    switches = {}
    if isinstance(config.decoder, DecoderV1Config):
        switches["decoder.warmed_up"] = np.array(
            int(bool(config.decoder.noise and config.decoder.noise.heard))
        )
    if config.latent.codebooks:
        switches["encoder.enabled"] = np.array(int(config.latent.quantised))
        for level in range(config.latent.codebooks):
            switches[f"encoder.rvq.layers.{level}._codebook.inited"] = np.ones(1, np.float32)
    return switches


def _normed(entry: Entry, config: RaveConfig) -> bool:
    """Whether RAVE puts weight norm on an array: on convolutions, but not the v1 encoder's or the noise's."""
    noise = "noise_module" in entry.name or "synth.branches.2" in entry.name
    plain = entry.name.startswith("encoder.") and config.encoder.kind == "v1"
    return entry.path.endswith("_kernel") and not noise and not plain
