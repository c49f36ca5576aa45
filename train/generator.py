"""Train the generator: encode scores to z, learn beat summaries, then the densities of all levels.

    python train/generator.py encode --scores DATA/scores --codec codec.safetensors --out DATA/z
    python train/generator.py train configs/generator/tiny.yaml data.z=DATA/z data.codec=codec.safetensors \
        data.text=text_folder out=runs/generator
    python train/generator.py sample configs/generator/tiny.yaml data.z=.. data.codec=.. out=runs/generator

The first two go on where they stopped when they are run again. `encode --runner NAME` lets Apache Beam make
the records, as in tools/prepare_data.py.
"""

import argparse
import sys
from pathlib import Path

from mfm_jax.config import load
from mfm_jax.training.commands import add_workers, workers_of
from mfm_jax.training.compositions import EncodeConfig, encode_scores
from mfm_jax.training.generator_run import GeneratorRun, embed, train
from mfm_jax.training.generator_samples import SampleConfig, report
from mfm_jax.training.script import add_run_options, run_script
from mfm_jax.training.stretches import load_stretches


def main() -> None:
    """Parse the command line and run one of the stages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = parser.add_subparsers(dest="stage", required=True)
    encode = stages.add_parser("encode", help="scores -> z records")
    encode.add_argument("--scores", required=True, help="folder of score records")
    encode.add_argument("--codec", required=True, help="codec.safetensors")
    encode.add_argument("--out", required=True, help="folder for z records")
    add_workers(encode, 1)
    encode.add_argument("settings", nargs="*", help="YAML files and name=value overrides of EncodeConfig")
    fit = stages.add_parser("train", help="z records -> generator.safetensors")
    add_run_options(fit, GeneratorRun)
    look = stages.add_parser("sample", help="generator.safetensors -> MIDI and figures beside held-out music")
    look.add_argument("settings", nargs="+", help="as for train")
    look.add_argument("--sampling", nargs="*", default=[], help="overrides of SampleConfig")
    arguments, rest = parser.parse_known_args()
    if rest and arguments.stage != "encode":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if arguments.stage == "encode":
        settings = load(EncodeConfig, *arguments.settings)
        workers = workers_of({**vars(arguments), "beam": rest})
        encode_scores(arguments.scores, arguments.codec, arguments.out, settings, workers)
    elif arguments.stage == "sample":
        run = load(GeneratorRun, *arguments.settings)
        sampling = load(SampleConfig, *arguments.sampling)
        held_out = load_stretches(run.data.z, "valid")
        out = Path(run.out)
        text = embed(run.data, held_out, run.model, out / "text_cache")
        figures = report(
            out / "generator.safetensors", run.data.codec, held_out, out / "samples", sampling, text
        )
        print("\n".join(f"{name} {value:.3f}" for name, value in figures.items()))
    else:
        sys.exit(run_script(GeneratorRun, train, arguments))


if __name__ == "__main__":
    main()
