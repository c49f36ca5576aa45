"""Prepare training data: `python tools/prepare_data.py STAGE ...`, the same as `mfm data STAGE ...`."""

import argparse
import sys

from mfm_jax.training.commands import add_stages, run


def main() -> int:
    """Run one stage; 0 done, 2 bad input (one line on stderr)."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_stages(parser)
    try:
        run(vars(parser.parse_args()))
    except ValueError as error:
        print(f"prepare_data: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
