"""Published T5 encoders (`google/flan-t5-*`, T5 v1.1), from a folder or the hub -> our text encoder."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from mfm_jax.axes import Params
from mfm_jax.checkpoint import save_weights
from mfm_jax.config import to_dict
from mfm_jax.models.text import TextConfig
from mfm_jax.models.text_loading import load_tokeniser

FILES = ("config.json", "tokenizer.json", "*.safetensors", "model.safetensors.index.json")
DEFAULT = "google/flan-t5-large"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def convert(
    source: str,
    out: Path,
    revision: str | None = None,
    dtype: str = "float32",
    half: bool = False,
) -> str:
    """Write `text.safetensors` and `tokenizer.json` of a published encoder; say what they are.

    Args:
        source: a folder with config.json, tokenizer.json and safetensors, or the name of a repository such
            as google/flan-t5-large, which is then fetched.
        out: folder for the two files.
        revision: commit, branch or tag of the repository.
        dtype: in which the encoder will run, 'float32' or 'bfloat16'; softmax and norms stay in float32.
        half: store float16, half the size; rounding of 5e-4.

    Raises:
        ValueError: no such folder or repository, a file is missing or broken, or it is not a gated T5.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(source) if Path(source).is_dir() else _fetched(source, revision, Path(scratch))
        config, params = read_t5(folder, dtype)
        load_tokeniser(folder / "tokenizer.json")
        out.mkdir(parents=True, exist_ok=True)
        told = {"source": source, "revision": revision or ""}
        # First the tokeniser: weights without one would look whole.
        partial = out / ".tokenizer.json.part"
        shutil.copyfile(folder / "tokenizer.json", partial)
        partial.replace(out / "tokenizer.json")
        save_weights(out / "text.safetensors", params, to_dict(config), told, half=half)
    size = (out / "text.safetensors").stat().st_size / 1e6
    return f"{source}: {config.layers} layers, {config.width}-d, {size:.0f} MB -> {out / 'text.safetensors'}"


def _fetched(name: str, revision: str | None, scratch: Path) -> Path:
    """Fetch a repository's encoder from the hub."""
    if not _HUB_NAME.fullmatch(name):
        raise ValueError(f"{name}: neither a folder nor a repository's name such as {DEFAULT}")
    from huggingface_hub import snapshot_download  # seconds to import
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES), local_dir=scratch))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{name}: cannot be fetched ({reason}); check name and network, or give a folder"
        ) from None


def read_t5(folder: Path, dtype: str = "float32") -> tuple[TextConfig, Params]:
    """Read a published encoder from a local folder.

    Args:
        folder: holds config.json, and model.safetensors or shards with their index.
        dtype: of the activations.

    Raises:
        ValueError: a file is missing or broken, or the model is not a gated T5.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder}: no config.json here, expected a download such as {DEFAULT}")
    try:
        published = json.loads(path.read_text())
        gated = str(published.get("feed_forward_proj", "")).startswith("gated-gelu")
    except (ValueError, AttributeError):
        raise ValueError(f"{path}: not a config.json of a T5; fetch it again") from None
    if not gated:
        raise ValueError(
            f"{folder}: feed_forward_proj is {published.get('feed_forward_proj')!r}, only gated-gelu "
            "(flan-t5-*, t5-v1_1-*) is supported"
        )
    names = ("vocab_size", "d_model", "num_layers", "num_heads", "d_kv", "d_ff")
    missing = [name for name in names if not isinstance(published.get(name), int)]
    if missing:
        raise ValueError(f"{path}: says nothing of {', '.join(missing)}; fetch it again")
    vocabulary, width, layers, heads, head_width, ffn = (published[name] for name in names)
    config = TextConfig(
        vocabulary=vocabulary,
        width=width,
        layers=layers,
        heads=heads,
        head_width=head_width,
        ffn=ffn,
        buckets=published.get("relative_attention_num_buckets", 32),
        max_distance=published.get("relative_attention_max_distance", 128),
        output_width=0,
        dtype=dtype,
    )
    files = _files(folder)
    return config, t5_params(config, lambda name: _tensor(files, name, folder))


def t5_params(config: TextConfig, tensor: Callable[[str], np.ndarray]) -> Params:
    """Rearrange an encoder's tensors, named as in `transformers`, into the parameters of `TextEncoder`.

    Args:
        config: its shape.
        tensor: gives the array of a name, or raises.

    Raises:
        ValueError: a tensor is of another shape than the config says.
    """
    c = config

    def stacked(name: str, shape: tuple[int, ...]) -> np.ndarray:
        whole = np.empty((c.layers, *shape), np.float32)
        for i in range(c.layers):
            full = f"encoder.block.{i}.layer.{name}.weight"
            whole[i] = _shaped(tensor(full).T, shape, full)
        return whole

    inward, outward = (c.width, c.heads, c.head_width), (c.heads, c.head_width, c.width)
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    blocks: dict[str, Any] = {
        "attention": {
            "query": {"kernel": stacked("0.SelfAttention.q", inward)},
            "key": {"kernel": stacked("0.SelfAttention.k", inward)},
            "value": {"kernel": stacked("0.SelfAttention.v", inward)},
            "out": {"kernel": stacked("0.SelfAttention.o", outward)},
        },
        "attention_norm": {"scale": stacked("0.layer_norm", (c.width,))},
        "ffn_norm": {"scale": stacked("1.layer_norm", (c.width,))},
        "gate": {"kernel": stacked("1.DenseReluDense.wi_0", (c.width, c.ffn))},
        "up": {"kernel": stacked("1.DenseReluDense.wi_1", (c.width, c.ffn))},
        "down": {"kernel": stacked("1.DenseReluDense.wo", (c.ffn, c.width))},
    }
    last = "encoder.final_layer_norm.weight"
    return {
        "params": {
            "embed": {
                "embedding": _shaped(tensor("shared.weight"), (c.vocabulary, c.width), "shared.weight")
            },
            "position_bias": _shaped(tensor(bias), (c.buckets, c.heads), bias),
            "blocks": blocks,
            "final_norm": {"scale": _shaped(tensor(last), (c.width,), last)},
        }
    }


def _shaped(array: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    if array.size != np.prod(shape):
        raise ValueError(f"{name}: {array.size} numbers, its config.json asks for {shape}")
    return array.reshape(shape).astype(np.float32)


def _files(folder: Path) -> dict[str, Path]:
    """Say in which file each tensor lies."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    found: dict[str, Path] = {}
    for path in (folder / Path(name).name for name in names):
        if not path.is_file():
            raise ValueError(f"{path}: no such file, expected T5 weights as safetensors")
        try:
            with safe_open(path, framework="flax") as file:
                found |= dict.fromkeys(file.keys(), path)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a readable safetensors file ({error}); fetch it again") from None
    return found


def _tensor(files: dict[str, Path], name: str, folder: Path) -> np.ndarray:
    """Read one tensor as float32; the token embedding goes by either of its names."""
    if name == "shared.weight" and name not in files:
        name = "encoder.embed_tokens.weight"
    if name not in files:
        raise ValueError(f"{folder}: no tensor {name}; is this the encoder of a T5 v1.1?")
    with safe_open(files[name], framework="flax") as file:  # NumPy knows no bfloat16, Flax does
        return np.asarray(file.get_tensor(name), np.float32)
