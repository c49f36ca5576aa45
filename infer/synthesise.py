"""Play every MIDI file of a folder tree; goes on where it stopped when it is run again.

    python infer/synthesise.py SCORES --out SOUNDS [--model DIR]

writes NAME.wav, NAME.png and NAME.json into the same subfolders. A file that cannot be read or has no
notes is named and skipped; the exit code is then 2.
"""

import argparse
import functools
import sys
from pathlib import Path

from mfm_jax.cli import Parser
from mfm_jax.inference.commands import write_rendering
from mfm_jax.inference.engine import Engine, keep_compiled_code
from mfm_jax.inference.folders import each_file
from mfm_jax.music.midi import MIDI_SUFFIXES


def main() -> int:
    """Parse the command line and play."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="folder of weights")
    options = parser.parse_args()
    keep_compiled_code()
    work = functools.partial(write_rendering, Engine(options.model))
    try:
        faults = each_file(options.folder, MIDI_SUFFIXES, options.out, ".wav", work)
    except ValueError as error:
        parser.error(str(error))
    return 2 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
