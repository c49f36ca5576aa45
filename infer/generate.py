"""Make music for every line of a file of prompts; goes on where it stopped when it is run again.

    python infer/generate.py PROMPTS.txt --out DIR [--seconds S] [--seed N] [--model DIR]

Each line that is neither empty nor a comment (#) is a prompt and gets a folder, numbered as the lines are.
A prompt that stands there twice gets another seed the second time.
"""

import argparse
import sys
from pathlib import Path

from mfm_jax.cli import Parser
from mfm_jax.inference.commands import numbered
from mfm_jax.inference.engine import Engine, keep_compiled_code
from mfm_jax.inference.generation import Wish, generate, seeds_of, understand
from mfm_jax.inference.outputs import slug, staged


def main() -> int:
    """Parse the command line and write the folders that are missing."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, help="length (20, or the prompt's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="folder of weights")
    options = parser.parse_args()
    wish = Wish(seconds=options.seconds)
    try:
        lines = [line.strip() for line in options.prompts.read_text(encoding="utf-8").splitlines()]
        prompts = [line for line in lines if line and not line.startswith("#")]
        if not prompts:
            raise ValueError(f"{options.prompts}: no prompt in it; write one on a line")
        plans = understand(prompts, wish)
        keep_compiled_code()
        engine = Engine(options.model)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    names = numbered([slug(prompt) for prompt in prompts])
    todo = [
        (name, plan, seed)
        for name, plan, seed in zip(names, plans, seeds_of(prompts, options.seed))
        if not (options.out / name).exists()
    ]
    print(f"{len(names)} prompts, {len(names) - len(todo)} done before", file=sys.stderr)
    for number, (name, plan, seed) in enumerate(todo, 1):
        with staged(options.out) as scratch:
            for piece in generate(engine, [plan], [seed], wish):
                piece.save(scratch / name)
        print(f"{number} of {len(todo)}: {name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
