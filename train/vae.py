"""Train the VAE on clips; goes on where it stopped when it is run again.

python train/vae.py configs/vae/tiny.yaml clips=DATA/train valid=DATA/valid out=runs/vae
"""

import argparse

import jax

from mfm_jax.config import load
from mfm_jax.mesh import add_process_options, start_processes
from mfm_jax.training.vae_run import VAERun, train


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="+", help="YAML files and name=value overrides of VAERun")
    add_process_options(parser)
    told = parser.parse_args()
    start_processes(told.coordinator, told.processes, told.process)
    weights = train(load(VAERun, *told.settings))
    if jax.process_index() == 0:
        print(weights)


if __name__ == "__main__":
    main()
