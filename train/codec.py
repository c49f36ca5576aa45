"""Train the codec on latents, stage after stage; goes on where it stopped when it is run again.

    python train/codec.py configs/codec/tiny.yaml latents=DATA/latents_train out=runs/codec

writes OUT/codec.safetensors, and OUT/STAGE/metrics.jsonl with note F1 on the folders given as `valid`.
"""

import argparse

import jax

from mfm_jax.config import load
from mfm_jax.mesh import add_process_options, start_processes
from mfm_jax.training.codec_run import CodecRun, train


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="+", help="YAML files and name=value overrides of CodecRun")
    add_process_options(parser)
    told = parser.parse_args()
    start_processes(told.coordinator, told.processes, told.process)
    weights = train(load(CodecRun, *told.settings))
    if jax.process_index() == 0:
        print(weights)


if __name__ == "__main__":
    main()
