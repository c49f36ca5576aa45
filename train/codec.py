"""Train the codec on latents, stage after stage; goes on where it stopped when it is run again.

    python train/codec.py configs/codec/tiny.yaml latents=DATA/latents_train out=runs/codec

writes OUT/codec.safetensors, and OUT/STAGE/metrics.jsonl with note F1 on the folders given as `valid`.
"""

import argparse

from mfm_jax.config import load
from mfm_jax.training.codec_run import CodecRun, train


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="+", help="YAML files and name=value overrides of CodecRun")
    print(train(load(CodecRun, *parser.parse_args().settings)))


if __name__ == "__main__":
    main()
