import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mfm_jax.config import build
from mfm_jax.models.text import TextConfig, TextEncoder, relative_buckets
from mfm_jax.models.text_loading import Text, load_t5, load_tokeniser, t5_params
from tests.reference import t5

CONFIG = TextConfig(vocabulary=40, width=16, layers=2, heads=2, head_width=6, ffn=24, output_width=0)
PRETRAINED = Path(__file__).parents[2] / "mfm_jax" / "pretrained"


@pytest.fixture(scope="module")
def tensors():
    return t5.random_tensors(np.random.default_rng(0), 40, 16, 2, 2, 6, 24)


@pytest.fixture(scope="module")
def encode():
    return jax.jit(TextEncoder(CONFIG).apply)


def padded(rows, length):
    ids, mask = np.zeros((len(rows), length), np.int32), np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, True
    return jnp.asarray(ids), jnp.asarray(mask)


def test_buckets_are_those_of_the_reference():
    table = np.asarray(relative_buckets(300, 32, 128))
    expected = [[t5.bucket(j - i) for j in range(300)] for i in (0, 150, 299)]
    np.testing.assert_array_equal(table[[0, 150, 299]], expected)


def test_agrees_with_the_float64_reference_on_ragged_batches(tensors, encode):
    rng = np.random.default_rng(1)
    rows = [list(rng.integers(0, 40, n)) for n in (1, 20, 7)]
    tokens, pooled = encode(t5_params(CONFIG, tensors), *padded(rows, 24))
    for i, row in enumerate(rows):
        expected = t5.encode(tensors, row, 2, 2, 6)
        np.testing.assert_allclose(tokens[i, : len(row)], expected, atol=1e-4)
        np.testing.assert_array_equal(tokens[i, len(row) :], 0)
        mean = expected.mean(0)
        np.testing.assert_allclose(pooled[i], mean / np.sqrt(np.mean(mean**2)), atol=2e-4)


def test_padding_does_not_change_the_answer(tensors, encode):
    params = t5_params(CONFIG, tensors)
    row = [3, 1, 4, 1, 5]
    short, long = (encode(params, *padded([row], n)) for n in (5, 24))
    np.testing.assert_allclose(short[0][0], long[0][0, :5], atol=1e-5)
    np.testing.assert_allclose(short[1], long[1], atol=1e-5)


def test_a_text_without_tokens_gives_zeros(tensors, encode):
    tokens, pooled = encode(t5_params(CONFIG, tensors), *padded([[]], 24))
    assert not np.any(tokens)
    assert not np.any(pooled)


def test_the_projection_sets_the_width_and_parameters_match_the_loader(tensors):
    config = build(
        TextConfig, {"vocabulary": 40, "width": 16, "layers": 2, "heads": 2, "head_width": 6, "ffn": 24}
    )
    model, texts = TextEncoder(config), padded([[1]], 8)
    fresh = jax.eval_shape(model.init, jax.random.key(0), *texts)
    tokens, pooled = jax.eval_shape(model.apply, fresh, *texts)
    assert tokens.shape == (1, 8, 384)
    assert pooled.shape == (1, config.embedding_width)
    shapes = jax.tree.map(np.shape, fresh["params"])
    del shapes["project"]
    assert shapes == jax.tree.map(np.shape, t5_params(CONFIG, tensors)["params"])


def toy_tokeniser():
    tokeniser = Tokenizer(
        models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "sad": 3, "piano": 4}, unk_token="<unk>")
    )
    tokeniser.pre_tokenizer = pre_tokenizers.Whitespace()
    tokeniser.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokeniser


@pytest.fixture
def folder(tmp_path, tensors):
    published = {"vocab_size": 40, "d_model": 16, "num_layers": 2, "num_heads": 2, "d_kv": 6, "d_ff": 24}
    (tmp_path / "config.json").write_text(json.dumps(published | {"feed_forward_proj": "gated-gelu"}))
    save_file(tensors | {"decoder.block.0.unused": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    toy_tokeniser().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_a_published_folder_loads_and_each_text_is_encoded_by_itself(folder, tensors):
    text = load_t5(folder)
    together = text(["sad piano", "piano " * 30], length=12)
    alone = text(["sad piano"], length=12)
    np.testing.assert_array_equal(together.pooled[0], alone.pooled[0])
    np.testing.assert_allclose(alone.tokens[0, :3], t5.encode(tensors, [3, 4, 1], 2, 2, 6), atol=1e-4)
    assert together.mask.sum(1).tolist() == [3, 12]


def test_sharded_weights_load(folder, tensors):
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    save_file({n: tensors[n] for n in names[:5]}, folder / "a.safetensors")
    save_file({n: tensors[n] for n in names[5:]}, folder / "b.safetensors")
    index = {"weight_map": {n: "a.safetensors" if n in names[:5] else "b.safetensors" for n in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load_t5(folder)(["sad"]).pooled.shape == (1, 16)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", '{"feed_forward_proj": "relu"}', "gated-gelu"),
        ("tokenizer.json", "no json", "not a tokenizer"),
        ("tokenizer.json", None, "no tokeniser"),
        ("model.safetensors", None, "no such file"),
    ],
)
def test_a_broken_folder_is_refused_by_name(folder, name, content, message):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_t5(folder)


def test_the_embedded_encoder_understands_prompts():
    from mfm_jax.checkpoint import load_weights

    params, config, _ = load_weights(PRETRAINED / "text.safetensors")
    text = Text(build(TextConfig, config), params, load_tokeniser(PRETRAINED / "tokenizer.json"))
    pooled = text(
        ["a sad slow piano piece", "melancholy piano, lento", "fast rock with drums and guitar"]
    ).pooled
    unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > unit[0] @ unit[2] + 0.2
