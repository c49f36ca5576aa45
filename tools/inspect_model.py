"""Print what a generator costs: parameters, state and operations a step of each level.

    python tools/inspect_model.py configs/generator/paper.yaml [--json FILE]
    python tools/inspect_model.py mfm_jax/pretrained/generator.safetensors

State is what one sequence keeps between steps: it does not grow, so the table holds for any length.
Nothing is computed and no weights are made: shapes are enough.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import yaml

from mfm_jax.axes import TICKS_PER_BEAT
from mfm_jax.checkpoint import load_weights
from mfm_jax.config import build
from mfm_jax.layers.xlstm import step_flops
from mfm_jax.models.conditions import unknown
from mfm_jax.models.generator import Generator, GeneratorConfig
from mfm_jax.models.generator_sampling import seeds_of, start
from mfm_jax.models.plan import N_FACTS, Plan

LEVELS = ("section", "beat", "tick")
ONCE = {"conditions", "text"}  # parts that a piece uses once, not at every step
TEMPO = 120  # quarter notes a minute, of the sums by second
SECTION = 16  # beats of a section in them


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="YAML of a training run, or generator.safetensors")
    parser.add_argument("--json", type=Path, help="write the figures")
    arguments = parser.parse_args()
    figures = inspect(read_config(arguments.model))
    print("| level | parameters | state, bytes a sequence | FLOPs a step | steps a second of music |")
    print("|---|---|---|---|---|")
    for name in LEVELS:
        row = figures[name]
        told = f"{row['parameters']:,} | {row['state']:,} | {row['flops']:,} | {row['rate']:g}"
        print(f"| {name} | {told} |")
    print(f"\nparameters in all: {figures['parameters']:,} (summaries, count of sections and all levels)")
    print(f"state of a sequence, rings and places included: {figures['state'] / 2**20:.2f} MiB")
    print(f"the same with guidance: {figures['guided_state'] / 2**20:.2f} MiB")
    print(f"operations: {figures['flops_a_second'] / 1e9:.2f} GFLOP a second of music")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def read_config(path: Path) -> GeneratorConfig:
    """Take the generator's config out of a run's YAML or a weights file."""
    if path.suffix == ".safetensors":
        values = load_weights(path).config
    else:
        values = (yaml.safe_load(path.read_text()) or {}).get("model", {})
    return build(GeneratorConfig, values)


def inspect(config: GeneratorConfig) -> dict[str, Any]:
    """Give the figures of each level and of the whole."""
    params = shapes(config)
    states = {guided: state_shapes(config, params, guided) for guided in (False, True)}
    rates = {"section": TEMPO / 60 / SECTION, "beat": TEMPO / 60, "tick": TEMPO / 60 * TICKS_PER_BEAT}
    figures: dict[str, Any] = {}
    for name in LEVELS:
        flops = step_flops(getattr(config, name).xlstm) + 2 * _per_step(params[name])
        if name == "beat":  # its decoder proposes the ticks
            flops += 2 * sum(_count(part) for n, part in params["coder"].items() if n.startswith("decoder"))
        figures[name] = {
            "parameters": _count(params[name]),
            "state": _bytes(getattr(states[False], f"{name}_level")),
            "flops": flops,
            "rate": rates[name],
        }
    figures["flops_a_second"] = sum(figures[name]["flops"] * figures[name]["rate"] for name in LEVELS)
    figures["parameters"] = _count(params)
    figures["state"], figures["guided_state"] = (_bytes(states[guided]) for guided in (False, True))
    return figures


def shapes(config: GeneratorConfig) -> Any:
    """Shapes of all parameters."""
    beats = 2
    row = jnp.zeros((1, beats))
    plan = Plan(
        section=row.astype(int),
        position=row,
        length=row + beats,
        label=row.astype(int),
        facts=jnp.zeros((1, beats, N_FACTS)),
        phase=row,
        bar=row + 48,
        passed=row,
        mask=row == 0,
        n_sections=jnp.ones(1, int),
        lag=jnp.full(1, 4),
    )
    z = jnp.zeros((1, beats, TICKS_PER_BEAT, config.coder.latent))
    wishes = unknown(1, config.text_width, config.text_tokens)
    return jax.eval_shape(Generator(config).init, jax.random.key(0), wishes, plan, z)["params"]


def state_shapes(config: GeneratorConfig, params: Any, guided: bool) -> Any:
    """Shapes of the state of one sequence."""
    wishes = unknown(1, config.text_width, config.text_tokens)

    def begin(params: Any) -> Any:
        return start(config, params, wishes, jnp.full(1, 48.0), jnp.full(1, 4), seeds_of([0]), guided)

    return jax.eval_shape(begin, params)


def _per_step(params: Any) -> int:
    """Count the matrices that every step of a level multiplies by, its stack left out."""
    count = 0
    for name, part in params.items():
        if name in ONCE or name == "stack":
            continue
        count += _per_step(part) if isinstance(part, dict) else part.size * (part.ndim > 1)
    return count


def _count(tree: Any) -> int:
    return sum(a.size for a in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree))


if __name__ == "__main__":
    main()
