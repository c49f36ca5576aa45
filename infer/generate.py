r"""Make music for every prompt of a list, with millions of them too; goes on where it stopped when run again.

    python infer/generate.py PROMPTS.txt --out DIR [--seconds S] [--seed N] [--model DIR]
    python infer/generate.py PROMPTS.jsonl --out DIR --keep audio,score,latents --batch 64 \
        --processes 8 --process 0

In a text file each line that is neither empty nor a comment (#) is a prompt. In JSON lines each is an object:
`{"prompt": "a waltz", "id": "w1", "seed": 7, "tempo": 90, "seconds": 12}`; all but the prompt may be left
out, and controls are those of `mfm generate`. A prompt that stands there twice gets another seed then.

Each prompt gets a folder, or with --keep a record in a shard. A prompt that cannot be done is named in
faults.jsonl, or in the shards' manifest.json, and the exit code is 2.
"""

import argparse
import sys
from pathlib import Path

from mfm_jax.cli import Parser
from mfm_jax.config import build
from mfm_jax.inference.generation import DRAFTS, generate
from mfm_jax.inference.jobs import add_options, job_of, run
from mfm_jax.inference.manifest import Item, open_manifest
from mfm_jax.inference.outputs import staged
from mfm_jax.inference.pieces import Piece
from mfm_jax.inference.planning import Wish, understand
from mfm_jax.inference.writing import ROWS


def main() -> int:
    """Parse the command line and make what is missing."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--seconds", type=float, help="length (20, or the prompt's)")
    parser.add_argument("--seed", type=int, default=0)
    add_options(parser)
    options = parser.parse_args()
    try:
        manifest = open_manifest(options.prompts, "prompt", options.seed)
        job = job_of(options)
        engine = job.engine(options.model, "vae", "codec", "generator", "text", "quiet")
        rows = ROWS if job.together is None else DRAFTS  # alone: the bytes of `mfm generate`

        def make(item: Item) -> Piece:
            wish = build(Wish, {"seconds": options.seconds, **item.controls})
            (piece,) = generate(engine, understand([item.source], wish), [item.seed], wish, rows)
            return piece

        def save(item: Item) -> None:
            piece = make(item)
            with staged(job.out) as scratch:
                piece.save(scratch / item.name)

        settings = {"seconds": options.seconds, "seed": options.seed, **engine.facts()}
        return run(job, manifest, "pieces", settings, make, save, lambda item: job.out / item.name)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
