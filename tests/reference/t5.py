"""T5's encoder in float64 NumPy, token by token, from the paper and with the published tensor names."""

import math

import numpy as np


def bucket(offset: int, buckets: int = 32, max_distance: int = 128) -> int:
    """Bucket of key position minus query position."""
    half = buckets // 2
    start = half if offset > 0 else 0
    distance = abs(offset)
    exact = half // 2
    if distance < exact:
        return start + distance
    large = exact + int(math.log(distance / exact) / math.log(max_distance / exact) * (half - exact) + 1e-9)
    return start + min(large, half - 1)


def encode(
    tensors: dict[str, np.ndarray], ids: list[int], layers: int, heads: int, head_width: int
) -> np.ndarray:
    """Encode one unpadded text -> [L, D]."""
    t = {name: value.astype(np.float64) for name, value in tensors.items()}
    x = np.stack([t["shared.weight"][i] for i in ids])
    table = t["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    for layer in range(layers):
        name = f"encoder.block.{layer}.layer"
        h = _norm(x, t[f"{name}.0.layer_norm.weight"])
        q, k, v = (
            (h @ t[f"{name}.0.SelfAttention.{part}.weight"].T).reshape(len(ids), heads, head_width)
            for part in "qkv"
        )
        mixed = np.zeros_like(q)
        for head in range(heads):
            for i in range(len(ids)):
                scores = np.array(
                    [q[i, head] @ k[j, head] + table[bucket(j - i), head] for j in range(len(ids))]
                )
                weights = np.exp(scores - scores.max())
                mixed[i, head] = (weights / weights.sum()) @ v[:, head]
        x = x + mixed.reshape(len(ids), -1) @ t[f"{name}.0.SelfAttention.o.weight"].T
        h = _norm(x, t[f"{name}.1.layer_norm.weight"])
        gate = h @ t[f"{name}.1.DenseReluDense.wi_0.weight"].T
        gelu = 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
        up = h @ t[f"{name}.1.DenseReluDense.wi_1.weight"].T
        x = x + (gelu * up) @ t[f"{name}.1.DenseReluDense.wo.weight"].T
    return _norm(x, t["encoder.final_layer_norm.weight"])


def random_tensors(
    rng: np.random.Generator, vocabulary: int, width: int, layers: int, heads: int, head_width: int, ffn: int
) -> dict[str, np.ndarray]:
    """Random weights under the published names."""
    inner = heads * head_width
    shapes = {"shared.weight": (vocabulary, width), "encoder.final_layer_norm.weight": (width,)}
    shapes["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (32, heads)
    for layer in range(layers):
        name = f"encoder.block.{layer}.layer"
        shapes |= {f"{name}.0.SelfAttention.{part}.weight": (inner, width) for part in "qkv"}
        shapes |= {f"{name}.0.SelfAttention.o.weight": (width, inner)}
        shapes |= {f"{name}.{i}.layer_norm.weight": (width,) for i in (0, 1)}
        shapes |= {f"{name}.1.DenseReluDense.wi_{i}.weight": (ffn, width) for i in (0, 1)}
        shapes |= {f"{name}.1.DenseReluDense.wo.weight": (width, ffn)}
    return {
        name: (1 + 0.1 * rng.normal(size=shape) if "norm" in name else rng.normal(size=shape) * 0.3).astype(
            np.float32
        )
        for name, shape in shapes.items()
    }


def _norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6) * scale
