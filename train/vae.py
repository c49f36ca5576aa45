"""Train the VAE on clips; goes on where it stopped when it is run again.

python train/vae.py configs/vae/tiny.yaml clips=DATA/train valid=DATA/valid out=runs/vae
"""

import argparse
import sys

from mfm_jax.training.script import add_run_options, run_script
from mfm_jax.training.vae_run import VAERun, train


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_options(parser, VAERun)
    sys.exit(run_script(VAERun, train, parser.parse_args()))


if __name__ == "__main__":
    main()
