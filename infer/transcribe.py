"""Transcribe every recording of a folder tree; goes on where it stopped when it is run again.

    python infer/transcribe.py RECORDINGS --out SCORES [--instruments 'piano, drums'] [--model DIR]

writes NAME.mid, NAME.csv, NAME.png and NAME.json into the same subfolders. A file that cannot be read is
named and skipped; the exit code is then 2.
"""

import argparse
import functools
import sys
from pathlib import Path

from mfm_jax.cli import Parser
from mfm_jax.inference.commands import SOUND_SUFFIXES, write_transcription
from mfm_jax.inference.engine import Engine, keep_compiled_code
from mfm_jax.inference.folders import each_file


def main() -> int:
    """Parse the command line and transcribe."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--instruments", help="what plays (default: found by listening)")
    parser.add_argument("--model", type=Path, help="folder of weights")
    options = parser.parse_args()
    keep_compiled_code()
    work = functools.partial(write_transcription, Engine(options.model), instruments=options.instruments)
    try:
        faults = each_file(options.folder, SOUND_SUFFIXES, options.out, ".mid", work)
    except ValueError as error:
        parser.error(str(error))
    return 2 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
