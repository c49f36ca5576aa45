"""Train the codec on latents, stage after stage; goes on where it stopped when it is run again.

    python train/codec.py configs/codec/tiny.yaml latents=DATA/latents_train out=runs/codec

writes OUT/codec.safetensors, and OUT/STAGE/metrics.jsonl with note F1 on the folders given as `valid`.
"""

import argparse
import sys

from mfm_jax.training.codec_run import CodecRun, train
from mfm_jax.training.script import add_run_options, run_script


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_options(parser, CodecRun)
    sys.exit(run_script(CodecRun, train, parser.parse_args()))


if __name__ == "__main__":
    main()
