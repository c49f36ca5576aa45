"""The O(1) claim of tools/benchmark_xlstm.py: a step's time and memory against its position in the piece.

The baseline is a transformer of the same width, depth and heads that keeps keys and values of all that came
before (a KV cache of exactly the positions it has seen: the least that it can do with).
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xlstm_rows import DECODER, least, our_model

POSITIONS = (0, 1_000, 3_000, 10_000, 30_000, 100_000)
PREFILL = 2_000  # tokens read at once on the way to a position


def recurrent_steps(repeats: int) -> dict[str, Any]:
    """Time a step of ours after each number of tokens; the states are real, the timings in turn."""
    import jax
    import jax.numpy as jnp

    from mfm_jax.models.xlstm_lm import XLSTMLM, initial_state

    config, params = our_model()
    model = XLSTMLM(config)
    advance = jax.jit(lambda params, tokens, state: model.apply({"params": params}, tokens, state))
    rng = jax.random.key(1)
    state, states, at = initial_state(config, 1), {}, 0
    for position in POSITIONS:
        while at < position:
            size = min(PREFILL, position - at)
            tokens = jax.random.randint(jax.random.fold_in(rng, at), (1, size), 0, DECODER["vocabulary"])
            state = advance(params, tokens, state)[1]
            at += size
        states[position] = state
    token = jnp.zeros((1, 1), int)
    compiled = advance.lower(params, token, state).compile()
    least_of = dict.fromkeys(states, float("inf"))
    for _ in range(10 * repeats):
        for position, state in states.items():
            start = time.process_time()
            jax.block_until_ready(compiled(params, token, state))
            least_of[position] = min(least_of[position], time.process_time() - start)
    return {
        "us": [1e6 * seconds for seconds in least_of.values()],
        "state": [sum(a.nbytes for a in jax.tree.leaves(s)) for s in states.values()],
        "temp": [compiled.memory_analysis().temp_size_in_bytes] * len(states),
    }


def cached_steps(repeats: int) -> dict[str, Any]:
    """Time a step of the transformer with caches of each length, filled at random."""
    import jax
    import jax.numpy as jnp

    step, params = transformer()
    us, sizes, temps = [], [], []
    for position in POSITIONS:
        c = DECODER
        shape = (2, c["heads"], position + 1, c["width"] // c["heads"])
        fill = jax.jit(lambda key, shape=shape: jax.random.normal(key, shape))
        cache = [fill(key) for key in jax.random.split(jax.random.key(2), c["layers"])]
        compiled = jax.jit(step, donate_argnums=1).lower(params, cache, jnp.zeros((), int)).compile()
        sizes.append(sum(a.nbytes for a in cache))
        temps.append(compiled.memory_analysis().temp_size_in_bytes)
        held = [cache]
        del cache

        def run(held: list[Any] = held, compiled: Any = compiled) -> None:
            logits, held[0] = compiled(params, held[0], jnp.zeros((), int))
            jax.block_until_ready(logits)

        us.append(1e6 * least(run, repeats if position < 10_000 else 4))
    return {"us": us, "state": sizes, "temp": temps}


def transformer() -> tuple[Callable[..., Any], Any]:
    """Give a step at the end of a cache, `(params, cache, token) -> (logits, cache)`, and parameters."""
    import jax
    import jax.numpy as jnp

    from mfm_jax.layers.mlp import gated, round_up
    from mfm_jax.layers.norm import rms_norm

    c = DECODER
    width, heads, hidden = c["width"], c["heads"], round_up(c["width"] * 2.6667)

    def layer(x: Any, weights: Any) -> tuple[Any, Any]:
        p, keys_values = weights
        q, k, v = jnp.split(rms_norm(x, p["scale"]) @ p["qkv"], 3)
        k, v = (a.reshape(heads, 1, -1) for a in (k, v))
        place = keys_values.shape[2] - 1
        keys_values = jax.lax.dynamic_update_slice(keys_values, jnp.stack([k, v]), (0, 0, place, 0))
        scores = jnp.einsum("hd,hpd->hp", q.reshape(heads, -1), keys_values[0]) * (width // heads) ** -0.5
        mixed = jnp.einsum("hp,hpd->hd", jax.nn.softmax(scores), keys_values[1])
        x = x + mixed.reshape(width) @ p["out"]
        return x + gated(rms_norm(x, p["scale"]), p["up"], p["down"], jax.nn.silu), keys_values

    def step(params: Any, cache: Any, token: Any) -> tuple[Any, Any]:
        x, written = params["embedding"][token], []
        for number, p in enumerate(params["layers"]):
            x, keys_values = layer(x, (p, cache[number]))
            written.append(keys_values)
        return x @ params["head"], written

    def weights(key: Any) -> Any:
        shapes = {
            "qkv": (width, 3 * width),
            "out": (width, width),
            "up": (width, 2, hidden),
            "down": (hidden, width),
        }
        drawn = {n: 0.02 * jax.random.normal(jax.random.fold_in(key, len(n)), s) for n, s in shapes.items()}
        return drawn | {"scale": jnp.ones(width)}

    keys = jax.random.split(jax.random.key(0), c["layers"])
    table = 0.02 * jax.random.normal(jax.random.key(3), (c["vocabulary"], width))
    return step, {"layers": [weights(key) for key in keys], "embedding": table, "head": table.T}


def positions(bench: Any, plot: Path | None) -> None:
    """Run both and print the table; draw it when asked."""
    found = {form: bench.run({"kind": "position", "form": form}) for form in ("ours", "transformer")}
    bench.found |= {f"{form} position": rows for form, rows in found.items()}
    print("| position | xLSTM: us a step, state MiB | transformer: us a step, cache MiB |")
    print("|---|---|---|")
    for n, position in enumerate(POSITIONS):
        told = [f"{f['us'][n]:,.0f}, {f['state'][n] / 2**20:.2f}" for f in found.values()]
        print(f"| {position:,} | {told[0]} | {told[1]} |")
    for form, f in found.items():
        print(f"{form}: last / first position, time {f['us'][-1] / f['us'][0]:.3f}")
    if plot is not None:
        draw(plot, found)


def draw(path: Path, found: dict[str, Any]) -> None:
    """Write a picture of time and memory against position."""
    from PIL import Image

    from mfm_jax.evaluation.charts import Series, chart

    names = {"ours": "xLSTM", "transformer": "transformer with a KV cache"}
    thousands = [p / 1000 for p in POSITIONS]

    def panel(title: str, unit: str, values: dict[str, list[float]]) -> Image.Image:
        lines = [Series(names[form], thousands, y, "line") for form, y in values.items()]
        return chart(title, "position, thousands of steps", unit, lines)

    times = {form: [us / 1000 for us in f["us"]] for form, f in found.items()}
    sizes = {form: [size / 2**20 for size in f["state"]] for form, f in found.items()}
    panels = [
        panel("Time of a step, 12 layers, width 512, one core", "CPU ms", times),
        panel("Memory that a sequence holds", "MiB", sizes),
    ]
    width, height = panels[0].size
    page = Image.new("RGB", (width, 2 * height))
    for number, image in enumerate(panels):
        page.paste(image, (0, number * height))
    page.save(path)
