import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from mfm_jax.checkpoint import load_weights
from mfm_jax.cli import main
from mfm_jax.config import build
from mfm_jax.convert import t5 as converter
from mfm_jax.models.text import TextConfig
from mfm_jax.models.text_loading import Text, load_tokeniser
from tests.models.test_text import toy_tokeniser
from tests.reference import t5

PUBLISHED = {
    "vocab_size": 40, "d_model": 16, "num_layers": 2, "num_heads": 2, "d_kv": 6, "d_ff": 24,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip


@pytest.fixture(scope="module")
def tensors():
    return t5.random_tensors(np.random.default_rng(0), 40, 16, 2, 2, 6, 24)


@pytest.fixture
def folder(tmp_path, tensors):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    save_file(tensors | {"decoder.block.0.unused": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    toy_tokeniser().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def loaded(out):
    params, config, meta = load_weights(out / "text.safetensors")
    return Text(build(TextConfig, config), params, load_tokeniser(out / "tokenizer.json")), meta


def test_a_published_folder_becomes_a_text_encoder(folder, tensors, capsys):
    out = folder / "out"
    assert main(["convert", "t5", str(folder), "--out", str(out)]) == 0
    assert "2 layers, 16-d" in capsys.readouterr().out
    found, meta = loaded(out)
    assert meta["source"] == str(folder)
    encoded = found(["sad piano"], length=12)
    np.testing.assert_allclose(encoded.tokens[0, :3], t5.encode(tensors, [3, 4, 1], 2, 2, 6), atol=1e-4)


def test_shards_load(folder, tensors):
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    save_file({n: tensors[n] for n in names[:5]}, folder / "a.safetensors")
    save_file({n: tensors[n] for n in names[5:]}, folder / "b.safetensors")
    index = {"weight_map": {n: "a.safetensors" if n in names[:5] else "b.safetensors" for n in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    params = converter.read_t5(folder)[1]["params"]
    np.testing.assert_array_equal(params["embed"]["embedding"], tensors["shared.weight"])


def test_a_name_is_fetched_at_its_revision(folder, tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def fetch(name, *, revision, allow_patterns, local_dir):
        asked.append((name, revision, "pytorch_model.bin" in allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    converter.convert("google/flan-t5-small", tmp_path / "out", "abc", "bfloat16", half=True)
    assert asked == [("google/flan-t5-small", "abc", False)]
    found, meta = loaded(tmp_path / "out")
    assert (meta["revision"], found.config.dtype) == ("abc", "bfloat16")


def test_what_cannot_be_fetched_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    import huggingface_hub

    def fail(name, **_):
        raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    for source, said in (
        ("google/flan-t5-none", "cannot be fetched"),
        ("no such folder", "neither a folder"),
    ):
        assert main(["convert", "t5", source, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", "{", "not a config.json"),
        ("config.json", '{"feed_forward_proj": "relu"}', "only gated-gelu"),
        ("config.json", '{"feed_forward_proj": "gated-gelu"}', "says nothing of vocab_size"),
        ("config.json", json.dumps(PUBLISHED | {"num_layers": 3}), "no tensor encoder.block.2"),
        ("config.json", json.dumps(PUBLISHED | {"d_ff": 25}), "asks for"),
        ("tokenizer.json", "no json", "not a tokenizer"),
        ("tokenizer.json", None, "no tokeniser"),
        ("model.safetensors", None, "no such file"),
        ("model.safetensors", "x", "not a readable safetensors"),
    ],
)
def test_a_broken_folder_is_refused_by_name(folder, tmp_path, name, content, message):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        converter.convert(str(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()
