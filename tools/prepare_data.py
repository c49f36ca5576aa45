r"""Prepare training data: `python tools/prepare_data.py STAGE ...`, the same as `mfm data STAGE ...`.

With `--runner NAME` Apache Beam makes the shards; all options that are not ours go to Beam as they are:

    python tools/prepare_data.py clips DATA/scores --out DATA/train --bank A.sf2 --runner FlinkRunner \
        --flink_master=HOST:8081 --parallelism=64
"""

import argparse
import sys

from mfm_jax.training.commands import add_stages, run


def main() -> int:
    """Run one stage; 0 done, 2 bad input (one line on stderr)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_stages(parser)
    options, rest = parser.parse_known_args()
    if rest and "runner" not in options:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        run({**vars(options), "beam": rest})
    except ValueError as error:
        print(f"prepare_data: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
