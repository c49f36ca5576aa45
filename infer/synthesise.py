"""Play every MIDI file of a folder tree or a list; goes on where it stopped when it is run again.

    python infer/synthesise.py SCORES --out SOUNDS [--model DIR]
    python infer/synthesise.py PATHS.txt --out SHARDS --keep audio,score --batch 64 --processes 8 --process 0

SCORES is a folder, a text file with a path on each line, or JSON lines `{"path": "a.mid", "id": "a"}`. Writes
NAME.wav, NAME.png and NAME.json into the same subfolders, or with --keep records in shards. A file that
cannot be read or has no notes is named in faults.jsonl (or the shards' manifest.json); the exit code is then
2.
"""

import argparse
import sys
from pathlib import Path

from mfm_jax.cli import Parser
from mfm_jax.inference import workflows
from mfm_jax.inference.commands import write_rendering
from mfm_jax.inference.jobs import add_options, job_of, run
from mfm_jax.inference.manifest import Item, open_manifest
from mfm_jax.inference.pieces import Piece
from mfm_jax.music.midi import MIDI_SUFFIXES


def main() -> int:
    """Parse the command line and play."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path)
    add_options(parser)
    options = parser.parse_args()
    try:
        manifest = open_manifest(options.scores, "path", suffixes=MIDI_SUFFIXES)
        job = job_of(options)
        engine = job.engine(options.model, "vae", "codec", "quiet")

        def make(item: Item) -> Piece:
            score = workflows.read_score(item.source)
            if not score.n_notes:
                raise ValueError(f"{item.source}: no notes to play")
            return workflows.synthesise(engine, item.source).piece()

        def save(item: Item) -> None:
            target = job.out / item.name
            write_rendering(engine, Path(item.source), target.parent, target.name)

        def result(item: Item) -> Path:
            return job.out / f"{item.name}.wav"

        return run(job, manifest, "sounds", engine.facts(), make, save, result)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
