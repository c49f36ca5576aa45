"""Transcribe every recording of a folder tree or a list; goes on where it stopped when it is run again.

    python infer/transcribe.py RECORDINGS --out SCORES [--instruments 'piano, drums'] [--model DIR]
    python infer/transcribe.py PATHS.jsonl --out SHARDS --keep score --batch 64 --processes 8 --process 0

RECORDINGS is a folder, a text file with a path on each line, or JSON lines
`{"path": "a.wav", "id": "a", "instruments": "piano", "tempo": 90}`. Writes NAME.mid, NAME.csv, NAME.png and
NAME.json into the same subfolders, or with --keep records in shards. A file that cannot be read is named in
faults.jsonl (or the shards' manifest.json); the exit code is then 2.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

from mfm_jax.cli import Parser
from mfm_jax.config import build
from mfm_jax.inference import workflows
from mfm_jax.inference.commands import SOUND_SUFFIXES, write_transcription
from mfm_jax.inference.jobs import add_options, job_of, run
from mfm_jax.inference.manifest import Item, open_manifest
from mfm_jax.inference.pieces import Piece


class Asked(NamedTuple):
    """Controls of an item."""

    instruments: str | None = None
    tempo: float | None = None


def main() -> int:
    """Parse the command line and transcribe."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--instruments", help="what plays (default: found by listening)")
    add_options(parser)
    options = parser.parse_args()
    try:
        manifest = open_manifest(options.recordings, "path", suffixes=SOUND_SUFFIXES)
        job = job_of(options)
        engine = job.engine(options.model, "vae", "codec")

        def asked(item: Item) -> Asked:
            return build(Asked, {"instruments": options.instruments, **item.controls})

        def make(item: Item) -> Piece:
            return workflows.transcribe(engine, item.source, *asked(item))

        def save(item: Item) -> None:
            target = job.out / item.name
            write_transcription(engine, Path(item.source), target.parent, target.name, *asked(item))

        def result(item: Item) -> Path:
            return job.out / f"{item.name}.mid"

        settings = {"instruments": options.instruments, **engine.facts()}
        return run(job, manifest, "scores", settings, make, save, result)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
