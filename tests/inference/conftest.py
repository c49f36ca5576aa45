from pathlib import Path

import pytest
import tiny_weights

from mfm_jax import MusicModel


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small random weights."""
    return tiny_weights.make(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def model(weights: Path) -> MusicModel:
    """The workflows on those weights, compiled once for all tests."""
    return MusicModel.from_pretrained(weights)
