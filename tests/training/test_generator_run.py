import pytest

from mfm_jax.records import pack, write_shard
from mfm_jax.training.generator_run import DataConfig, GeneratorRun, train
from mfm_jax.training.stretches import load_stretches
from tests.stages import GENERATOR
from tests.training.test_stretches import record


def test_z_that_does_not_tell_its_tonic_is_refused(tmp_path):
    arrays, facts = record()
    del facts["tonic"]
    write_shard(tmp_path / "z-00000-of-00001.array_record", [pack(arrays, facts)])
    with pytest.raises(ValueError, match="a does not say its tonic; encode it again"):
        load_stretches(tmp_path, "train")


def test_z_of_another_tonic_than_the_models_is_refused(tmp_path):
    """The model would be moved to a key that it never learnt; the check comes before anything is trained."""
    arrays, facts = record()
    write_shard(tmp_path / "z-00000-of-00001.array_record", [pack(arrays, {**facts, "tonic": 7})])
    data = DataConfig(z=str(tmp_path), codec="unused")
    run = GeneratorRun(model=GENERATOR, data=data, out=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"a was encoded in tonic 7, and model\.tonic asks for any key"):
        train(run)
    assert not (tmp_path / "run").exists()
