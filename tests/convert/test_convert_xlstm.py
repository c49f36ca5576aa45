import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mfm_jax.checkpoint import flatten
from mfm_jax.cli import main
from mfm_jax.convert.xlstm import from_published, to_published
from mfm_jax.convert.xlstm_files import load_lm
from mfm_jax.layers.xlstm import XLSTMConfig
from mfm_jax.layers.xlstm_2024_layers import XLSTM2024Config
from mfm_jax.models.xlstm_lm import XLSTMLM, XLSTMLMConfig
from tests.convert.published_xlstm import GOLDEN, PREFILL

FAMILIES = ("large", "2024")
LAYOUTS = (("large", "single"), ("large", "fused"), ("2024", "vanilla"), ("2024", "cuda"))


def golden(family):
    with np.load(GOLDEN / f"xlstm_{family}.npz") as file:
        weights = {
            name.removeprefix("weights/"): file[name].astype(np.float32)
            for name in file.files
            if name.startswith("weights/")
        }
        return weights, file["tokens"], file["logits"]


@pytest.fixture(scope="module")
def published():
    return {family: golden(family)[0] for family in FAMILIES}


@pytest.fixture(scope="module")
def converted(published):
    return {family: from_published(weights) for family, weights in published.items()}


def assert_same(got, want):
    got, want = flatten(got), flatten(want)
    assert got.keys() == want.keys()
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_published_model(family, converted):
    _, tokens, want = golden(family)
    params, config = converted[family]
    read = jax.jit(XLSTMLM(config).apply)
    first, state = read({"params": params}, tokens[:, :PREFILL])
    logits = [first]
    for n in range(PREFILL, tokens.shape[1]):
        one, state = read({"params": params}, tokens[:, n : n + 1], state)
        logits.append(one)
    np.testing.assert_allclose(np.concatenate(logits, 1), want, atol=1e-5)


def test_sizes_are_read_off_the_weights(converted):
    assert converted["large"].config == XLSTMLMConfig(
        vocabulary=13, stack=XLSTMConfig(layers=2, width=32, heads=4)
    )
    stack = XLSTM2024Config(layers=3, width=32, heads=4, slstm_heads=4, slstm_layers=(1,))
    assert converted["2024"].config == XLSTMLMConfig(vocabulary=13, stack=stack, logit_cap=None)


@pytest.mark.parametrize(("family", "layout"), LAYOUTS)
def test_every_layout_there_and_back(family, layout, published, converted):
    params, config = converted[family]
    away = to_published(params, config, layout)
    if layout in ("single", "vanilla"):
        assert_same(away, published[family])
    else:
        assert away.keys() != published[family].keys() or layout == "cuda"
    again = from_published(away)
    assert again.config == config
    assert_same(again.params, params)


def test_other_sizes_there_and_back():
    """No sLSTM convolution, no feed-forward layer, other blocks, heads and factors."""
    draw = np.random.default_rng(0).normal
    stack = XLSTM2024Config(
        layers=3,
        width=48,
        heads=2,
        slstm_heads=3,
        slstm_layers=(0, 2),
        mlstm_factor=4.0,
        ffn_factor=None,
        qkv_block=8,
        conv=3,
        slstm_conv=0,
    )
    for config in (
        XLSTMLMConfig(vocabulary=5, stack=stack, logit_cap=None),
        XLSTMLMConfig(vocabulary=5, stack=XLSTMConfig(layers=1, width=24, heads=3, qk_ratio=1.0)),
    ):
        shapes = jax.eval_shape(XLSTMLM(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
        params = jax.tree.map(lambda a: draw(size=a.shape).astype(np.float32), shapes["params"])
        again = from_published(to_published(params, config))
        assert again.config == config
        assert_same(again.params, params)


def test_faults_are_listed(published):
    weights = dict(published["large"])
    del weights["backbone.blocks.1.ffn.proj_down.weight"], weights["lm_head.weight"]
    weights["backbone.blocks.0.mlstm_layer.q.bias"] = np.zeros(16, np.float32)
    with pytest.raises(
        ValueError, match=r"2 missing: lm_head.*blocks\.1\.ffn\.proj_down.*1 unknown: .*q\.bias"
    ):
        from_published(weights)


def test_faults_of_a_fused_file_have_its_names(converted):
    weights = to_published(*converted["large"], "fused")
    del weights["backbone.blocks.1.mlstm_layer.qkv_opreact.weight"]
    with pytest.raises(
        ValueError, match=r"1 missing: backbone\.blocks\.1\.mlstm_layer\.qkv_opreact\.weight;"
    ):
        from_published(weights)


def test_misshapen_tensors_are_listed(published):
    weights = dict(published["2024"])
    weights["xlstm_block_stack.blocks.2.xlstm.proj_down.weight"] = np.zeros((32, 65), np.float32)
    with pytest.raises(
        ValueError, match=r"1 misshapen: .*blocks\.2.*proj_down\.weight \(32, 65\), not \(32, 64\)"
    ):
        from_published(weights)


def test_a_missing_layer_is_missed(published):
    weights = {name: a for name, a in published["2024"].items() if ".blocks.0." not in name}
    with pytest.raises(ValueError, match=r"14 missing: .* and 2 more"):
        from_published(weights)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["some.weight"], "not weights of xLSTMLarge or xLSTMLMModel"),
        (["backbone.blocks.999999999.norm_mlstm.weight"], "blocks are numbered from 0 without gaps"),
    ],
)
def test_other_weights_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        from_published({name: np.zeros((2, 2), np.float32) for name in names})


def test_own_faults_and_foreign_layouts_are_refused(converted):
    params, config = converted["large"]
    with pytest.raises(ValueError, match="1 missing: head_kernel"):
        to_published({k: v for k, v in params.items() if k != "head_kernel"}, config)
    with pytest.raises(ValueError, match="'single' and 'fused'"):
        to_published(params, config, "cuda")


def test_sharded_bfloat16_folder_with_the_names_of_transformers(tmp_path, published, converted):
    weights = {name: a.astype(ml_dtypes.bfloat16) for name, a in published["large"].items()}
    weights["backbone.embeddings.weight"] = weights.pop("embedding.weight")
    names = sorted(weights)
    where = {name: f"model-{n % 2}.safetensors" for n, name in enumerate(names)}
    for shard in set(where.values()):
        save_file({name: weights[name] for name in names if where[name] == shard}, tmp_path / shard)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    params, config = from_published(tmp_path)
    assert config == converted["large"].config
    assert {a.dtype.name for a in jax.tree.leaves(params)} == {"bfloat16"}
    wide = jax.tree.map(lambda a: a.astype(np.float32), converted["large"].params)
    for name, array in flatten(params).items():
        np.testing.assert_allclose(array.astype(np.float32), flatten(wide)[name], rtol=2**-8)
    logits, state = jax.eval_shape(XLSTMLM(config).apply, {"params": params}, jnp.zeros((1, 1), jnp.int32))
    assert logits.dtype == state.mlstm.memory.dtype == jnp.float32

    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../elsewhere"}}')
    with pytest.raises(ValueError, match="outside its folder"):
        from_published(tmp_path)


@pytest.mark.parametrize(("family", "layout"), LAYOUTS[1::2])
def test_command_there_and_back(tmp_path, family, layout, published, converted):
    save_file(published[family], tmp_path / "in.safetensors")
    assert main(["convert", "xlstm", str(tmp_path / "in.safetensors"), "--out", str(tmp_path / "a")]) == 0
    params, config = load_lm(tmp_path / "a" / "xlstm.safetensors")
    assert config == converted[family].config
    assert_same(params, converted[family].params)
    back = ["convert", "xlstm", str(tmp_path / "a" / "xlstm.safetensors"), "--out", str(tmp_path / "b")]
    assert main([*back, "--to", layout]) == 0
    assert_same(load_file(tmp_path / "b" / "model.safetensors"), to_published(params, config, layout))


def test_command_takes_what_shapes_do_not_tell(tmp_path, published, capsys):
    for family in FAMILIES:
        save_file(published[family], tmp_path / f"{family}.safetensors")
    asked = ["--out", str(tmp_path), "--gate-cap", "9", "--logit-cap", "20"]
    assert main(["convert", "xlstm", str(tmp_path / "2024.safetensors"), *asked]) == 2
    assert "gates of the blocks of 2024 have none" in capsys.readouterr().err
    assert main(["convert", "xlstm", str(tmp_path / "large.safetensors"), *asked]) == 0
    _, config = load_lm(tmp_path / "xlstm.safetensors")
    assert (config.stack.gate_cap, config.logit_cap) == (9, 20)


def test_command_refuses_pickles_and_leaves_nothing(tmp_path, capsys):
    (tmp_path / "model.pt").write_bytes(b"\x80\x04.")
    assert main(["convert", "xlstm", str(tmp_path / "model.pt"), "--out", str(tmp_path / "out")]) == 2
    assert "pickled files are never opened" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
