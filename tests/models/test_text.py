from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from mfm_jax.config import build, to_dict
from mfm_jax.convert.t5 import t5_params
from mfm_jax.mesh import MeshConfig, make_mesh, put_batch
from mfm_jax.models.text import TextConfig, TextEncoder, relative_buckets
from mfm_jax.models.text_loading import Text, load_tokeniser
from mfm_jax.music.prompt_syntax import Emphasis, read_passages
from mfm_jax.sharding import put_parameters
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
    tokens, pooled = encode(t5_params(CONFIG, tensors.__getitem__), *padded(rows, 24))
    for i, row in enumerate(rows):
        expected = t5.encode(tensors, row, 2, 2, 6)
        np.testing.assert_allclose(tokens[i, : len(row)], expected, atol=1e-4)
        np.testing.assert_array_equal(tokens[i, len(row) :], 0)
        mean = expected.mean(0)
        np.testing.assert_allclose(pooled[i], mean / np.sqrt(np.mean(mean**2)), atol=2e-4)


def test_padding_does_not_change_the_answer(tensors, encode):
    params = t5_params(CONFIG, tensors.__getitem__)
    row = [3, 1, 4, 1, 5]
    short, long = (encode(params, *padded([row], n)) for n in (5, 24))
    np.testing.assert_allclose(short[0][0], long[0][0, :5], atol=1e-5)
    np.testing.assert_allclose(short[1], long[1], atol=1e-5)


def test_a_text_without_tokens_gives_zeros(tensors, encode):
    tokens, pooled = encode(t5_params(CONFIG, tensors.__getitem__), *padded([[]], 24))
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
    assert shapes == jax.tree.map(np.shape, t5_params(CONFIG, tensors.__getitem__)["params"])


def toy_tokeniser():
    tokeniser = Tokenizer(
        models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "sad": 3, "piano": 4}, unk_token="<unk>")
    )
    tokeniser.pre_tokenizer = pre_tokenizers.Whitespace()
    tokeniser.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokeniser


@pytest.fixture(scope="module")
def text(tensors):
    return Text(
        CONFIG,
        t5_params(CONFIG, tensors.__getitem__),
        PreTrainedTokenizerFast(tokenizer_object=toy_tokeniser()),
    )


def test_each_text_is_encoded_by_itself(text, tensors):
    together = text(["sad piano", "piano " * 30], length=12)
    alone = text(["sad piano"], length=12)
    np.testing.assert_array_equal(together.pooled[0], alone.pooled[0])
    np.testing.assert_allclose(alone.tokens[0, :3], t5.encode(tensors, [3, 4, 1], 2, 2, 6), atol=1e-4)
    assert together.mask.sum(1).tolist() == [3, 12]


def test_many_prompts_padded_and_bucketed_give_the_same_answer(text):
    rng = np.random.default_rng(2)
    prompts = [" ".join(rng.choice(["sad", "piano", "odd"], n)) for n in rng.integers(0, 70, 512)]
    many, single = text.many(prompts, rows=32), text(prompts)
    np.testing.assert_array_equal(many.mask, single.mask)
    np.testing.assert_allclose(many.tokens, single.tokens, atol=1e-5)
    np.testing.assert_allclose(many.pooled, single.pooled, atol=1e-5)


@pytest.mark.parametrize("shape", [MeshConfig(fsdp=2), MeshConfig(data=1, tensor=2)], ids=["fsdp", "tensor"])
def test_weights_and_batch_are_shared_out_over_devices(text, shape):
    mesh = make_mesh(shape)
    placed = put_parameters(text.params, mesh)
    kernel = placed["params"]["blocks"]["gate"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) != kernel.shape
    shared = Text(CONFIG, placed, text.tokeniser, put=lambda rows: put_batch(rows, mesh))
    assert shared.params["params"]["blocks"]["gate"]["kernel"].sharding == kernel.sharding
    prompts = ["sad piano", "piano", "", "sad " * 20]
    np.testing.assert_allclose(shared.many(prompts, rows=4).tokens, text(prompts).tokens, atol=1e-5)


def test_bfloat16_is_close_and_keeps_matrices_small(text):
    half = Text(build(TextConfig, to_dict(CONFIG) | {"dtype": "bfloat16"}), text.params, text.tokeniser)
    assert half.params["params"]["blocks"]["gate"]["kernel"].dtype == jnp.bfloat16
    assert half.params["params"]["final_norm"]["scale"].dtype == jnp.float32
    exact, rounded = text(["sad piano"]).pooled[0], half(["sad piano"]).pooled[0]
    assert exact @ rounded / np.linalg.norm(exact) / np.linalg.norm(rounded) > 0.999


def test_emphasis_scales_tokens_and_moves_the_pooled_mean(text):
    (passage,) = read_passages("sad:2 piano")
    plain, strong = text([passage.text]), text([passage.text], emphasis=[passage.emphasis])
    np.testing.assert_allclose(strong.tokens[0, 0], 2 * plain.tokens[0, 0], rtol=1e-6)
    np.testing.assert_array_equal(strong.tokens[0, 1:], plain.tokens[0, 1:])
    mean = (2 * plain.tokens[0, 0] + plain.tokens[0, 1] + plain.tokens[0, 2]) / 4
    np.testing.assert_allclose(strong.pooled[0], mean / np.sqrt(np.mean(mean**2)), rtol=1e-4)
    once = text([passage.text], emphasis=[(Emphasis(0, 3, 1.0),)])
    np.testing.assert_allclose(once.pooled, plain.pooled, atol=1e-6)


def test_the_embedded_encoder_understands_prompts():
    from mfm_jax.checkpoint import load_weights

    params, config, _ = load_weights(PRETRAINED / "text.safetensors")
    text = Text(build(TextConfig, config), params, load_tokeniser(PRETRAINED / "tokenizer.json"))
    pooled = text(
        ["a sad slow piano piece", "melancholy piano, lento", "fast rock with drums and guitar"]
    ).pooled
    unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > unit[0] @ unit[2] + 0.2
