"""Parity on RAVE checkpoints outside of the repository, and with acids-rave itself where it is installed.

MFM_RAVE_FIXTURES names a folder of folders, each with `last.ckpt` (or `.ts`), `config.gin` or none, and
`parity.npz`. MFM_RAVE_PYTHON names the Python of an environment with acids-rave.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mfm_jax import load_vae
from mfm_jax.convert.rave import convert
from tests.convert.rave_cases import check_parity

FOLDER = os.environ.get("MFM_RAVE_FIXTURES")
PYTHON = os.environ.get("MFM_RAVE_PYTHON")
MAKE = Path(__file__).parents[2] / "tools" / "make_rave_golden.py"
SMALL = ["--samples", "8192", "--set", "CAPACITY=3", "--set", "LATENT_SIZE=8", "--seed", "5"]
KINDS = {
    "stereo": ["v2", "--channels", "2", "--script"],
    "noise": ["v2", "--config", "noise", "--ema"],
    "wasserstein": ["v2", "--config", "wasserstein", "--set", "NOISE_AUGMENTATION=4"],
    "spherical": ["v2", "--config", "spherical"],
    "discrete": ["discrete", "--set", "CODEBOOK_SIZE=16", "--set", "NUM_QUANTIZERS=3"],
    "snake": ["v3"],
    "hybrid": ["hybrid"],
    "48k": ["v2_small", "--set", "SAMPLING_RATE=48000", "--config", "causal"],
    "ratios": ["v1", "--set", "RATIOS=[2,2,2,1]", "--parametrized"],
    "phase 2": ["v1", "--config", "causal", "--script"],
    "phase 1": ["v1", "--cold"],
}


def cases():
    return sorted(Path(FOLDER).glob("*/parity.npz")) if FOLDER else []


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER, reason="MFM_RAVE_FIXTURES names no folder")
@pytest.mark.parametrize("case", cases(), ids=lambda path: path.parent.name)
def test_fixtures(case, tmp_path):
    files = sorted(file for file in case.parent.iterdir() if file.suffix in (".ckpt", ".ts"))
    assert files
    for file in files:
        convert(file, tmp_path / file.name)
        print(file, check_parity(load_vae(tmp_path / file.name), dict(np.load(case))))


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.skipif(not PYTHON, reason="MFM_RAVE_PYTHON names no environment with acids-rave")
@pytest.mark.parametrize("kind", KINDS)
def test_models_made_on_the_spot(kind, tmp_path):
    told = [PYTHON, str(MAKE), str(tmp_path), "case", *SMALL, "--config", *KINDS[kind]]
    made = subprocess.run(told, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    for file in sorted((tmp_path / "case").glob("*.[ct][ks]*")):
        convert(file, tmp_path / file.suffix)
        vae = load_vae(tmp_path / file.suffix)
        print(kind, check_parity(vae, dict(np.load(tmp_path / "case" / "parity.npz"))))
