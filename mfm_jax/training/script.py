"""What the scripts of `train/` share: joining the other processes, reading settings, ending in one line."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax

from mfm_jax.config import load
from mfm_jax.mesh import add_process_options, start_processes
from mfm_jax.training.loop import TrainConfig

T = TypeVar("T")
DONE, FAILED, BAD_INPUT = 0, 1, 2


def add_run_options(parser: argparse.ArgumentParser, schema: type[object]) -> None:
    """Let a script take the settings of a run and its place among processes."""
    parser.add_argument(
        "settings", nargs="+", help=f"YAML files and name=value overrides of {schema.__name__}"
    )
    parser.add_argument("--profile", type=int, metavar="N", help="write an XLA trace of N steps of each fit")
    add_process_options(parser)


def profiled(settings: Any, steps: int) -> Any:
    """Give settings in which every fit writes a trace of so many steps.

    Raises:
        ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"--profile {steps}: must be 1 step or more")
    if isinstance(settings, TrainConfig):
        return dataclasses.replace(settings, profile=steps)
    if isinstance(settings, tuple):
        return tuple(profiled(one, steps) for one in settings)
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        return settings
    names = [field.name for field in dataclasses.fields(settings)]
    return dataclasses.replace(settings, **{n: profiled(getattr(settings, n), steps) for n in names})


def run_script(schema: type[T], train: Callable[[T], Path], told: argparse.Namespace) -> int:
    """Train as the command line says; give the exit code.

    The code is 0 when the run is done, 2 for bad settings or input, 1 when the guards ended it: each in one
    line (MFM_DEBUG=1 shows where). A run that a signal stopped ends by itself with 128 and its number.

    Args:
        schema: class of the run's config.
        train: gives the path of the weights.
        told: what `add_run_options` parsed.
    """
    try:
        start_processes(told.coordinator, told.processes, told.process)
        run = load(schema, *told.settings)
        weights = train(run if told.profile is None else profiled(run, told.profile))
    except (ValueError, FloatingPointError) as error:
        if os.environ.get("MFM_DEBUG"):
            raise
        print(f"{Path(sys.argv[0]).name}: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT if isinstance(error, ValueError) else FAILED
    if jax.process_index() == 0:
        print(weights)
    return DONE
