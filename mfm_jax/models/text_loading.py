"""Text in, embeddings out: the tokeniser, published T5 weights, and the encoder as one callable."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from safetensors import safe_open

from mfm_jax.axes import Params
from mfm_jax.models.text import TextConfig, TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MAX_TOKENS = 64  # tokens of a prompt that the generator reads; what follows is cut
_LENGTHS = (16, 32, 64, 128, 256, 512)  # padded lengths, so that few programs are compiled


class Embedding(NamedTuple):
    """Encoded texts: arrays of float32 and bool, `tokens` zero where `mask` is False."""

    tokens: Float[np.ndarray, "B L D"]
    mask: np.ndarray
    pooled: Float[np.ndarray, "B D"]


class Text:
    """A frozen text encoder with its tokeniser: call it with texts.

    Each text is encoded by itself at a padded length of its own, so its embedding does not depend, to the
    last bit, on what else is in the batch.
    """

    def __init__(self, config: TextConfig, params: Params, tokeniser: "PreTrainedTokenizerFast") -> None:
        self.config = config
        self.params = jax.tree.map(jnp.asarray, params)
        self.tokeniser = tokeniser
        self._encode = jax.jit(TextEncoder(config).apply)

    def __call__(self, texts: list[str], length: int = MAX_TOKENS) -> Embedding:
        """Encode texts one by one.

        Args:
            texts: any strings; an empty one gives the embedding of the empty text.
            length: L of the answer; longer texts are cut to it.

        Returns:
            tokens [B, L, D], mask [B, L] and pooled [B, D]; D is `config.embedding_width`.
        """
        width = self.config.embedding_width
        tokens = np.zeros((len(texts), length, width), np.float32)
        mask = np.zeros((len(texts), length), bool)
        pooled = np.zeros((len(texts), width), np.float32)
        for i, ids in enumerate(tokenise(self.tokeniser, texts, length)):
            padded = next((n for n in _LENGTHS if n >= len(ids)), len(ids))
            row = np.zeros((1, padded), np.int32)
            row[0, : len(ids)] = ids
            real = np.arange(padded)[None] < len(ids)
            encoded, summary = self._encode(self.params, jnp.asarray(row), jnp.asarray(real))
            tokens[i, : len(ids)] = np.asarray(encoded)[0, : len(ids)]
            mask[i, : len(ids)] = True
            pooled[i] = np.asarray(summary)[0]
        return Embedding(tokens, mask, pooled)


def load_tokeniser(path: str | Path) -> "PreTrainedTokenizerFast":
    """Load a `tokenizer.json` through `transformers`, without network.

    Raises:
        ValueError: if the file is missing or is not a tokeniser.
    """
    # Without this, transformers says on stderr that it found no PyTorch; nothing here needs it.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import PreTrainedTokenizerFast  # a second to import: only where text is read

    if not Path(path).is_file():
        raise ValueError(f"{path}: no tokeniser here, expected a tokenizer.json file")
    try:
        return PreTrainedTokenizerFast(tokenizer_file=str(path))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise ValueError(f"{path}: not a tokenizer.json file: {str(error)[:120]}") from None


def tokenise(tokeniser: "PreTrainedTokenizerFast", texts: list[str], length: int) -> list[list[int]]:
    """Give the ids of each text, special tokens included, at most `length` of them."""
    if not texts:
        return []
    batch = tokeniser(texts, truncation=True, max_length=length, padding=False)
    return [list(map(int, ids)) for ids in batch["input_ids"]]


def load_t5(folder: str | Path, dtype: str = "float32") -> Text:
    """Load a published encoder (`google/flan-t5-*` or T5 v1.1) from a local folder.

    Args:
        folder: holds config.json, tokenizer.json and model.safetensors (or shards and their index).
        dtype: of the activations: 'bfloat16' halves memory on accelerators.

    Raises:
        ValueError: if a file is missing, or the model is not a gated T5.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: no config.json here, expected a download such as google/flan-t5-large")
    published = json.loads((folder / "config.json").read_text())
    if not str(published.get("feed_forward_proj", "")).startswith("gated-gelu"):
        raise ValueError(
            f"{folder}: feed_forward_proj is {published.get('feed_forward_proj')!r}, only gated-gelu "
            "(flan-t5-*, t5-v1_1-*) is supported"
        )
    config = TextConfig(
        vocabulary=published["vocab_size"],
        width=published["d_model"],
        layers=published["num_layers"],
        heads=published["num_heads"],
        head_width=published["d_kv"],
        ffn=published["d_ff"],
        buckets=published.get("relative_attention_num_buckets", 32),
        max_distance=published.get("relative_attention_max_distance", 128),
        output_width=0,
        dtype=dtype,
    )
    return Text(config, t5_params(config, _tensors(folder)), load_tokeniser(folder / "tokenizer.json"))


def t5_params(config: TextConfig, tensors: dict[str, np.ndarray]) -> Params:
    """Rearrange the encoder's tensors, named as in `transformers`, into the parameters of `TextEncoder`."""
    c = config

    def stacked(name: str, shape: tuple[int, ...]) -> np.ndarray:
        layers = [
            tensors[f"encoder.block.{i}.layer.{name}.weight"].astype(np.float32) for i in range(c.layers)
        ]
        return np.stack([layer.T.reshape(shape) for layer in layers])

    inward, outward = (c.width, c.heads, c.head_width), (c.heads, c.head_width, c.width)
    embed = tensors.get("shared.weight", tensors.get("encoder.embed_tokens.weight"))
    if embed is None:
        raise ValueError(
            "no token embedding: expected a tensor 'shared.weight' or 'encoder.embed_tokens.weight'"
        )
    bias = tensors["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
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
    params: Params = {
        "embed": {"embedding": embed.astype(np.float32)},
        "position_bias": bias.astype(np.float32),
        "blocks": blocks,
        "final_norm": {"scale": tensors["encoder.final_layer_norm.weight"].astype(np.float32)},
    }
    return {"params": jax.tree.map(jnp.asarray, params)}


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    """Read the encoder's tensors from one safetensors file or from all shards of an index."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    tensors: dict[str, np.ndarray] = {}
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: no such file, expected T5 weights as safetensors")
        with safe_open(folder / name, framework="flax") as file:  # NumPy knows no bfloat16, Flax does
            wanted = [key for key in file.keys() if key.startswith(("encoder.", "shared."))]
            tensors |= {key: np.asarray(file.get_tensor(key), np.float32) for key in wanted}
    return tensors
