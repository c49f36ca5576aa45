"""CLAP's audio tower against transformers' torch module, with random weights."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.evaluation import clap

Arrays = dict[str, np.ndarray]
HEADS = (2, 4)


@pytest.fixture(scope="module")
def published() -> tuple[object, Arrays]:
    """A small tower: 16 bands, an image of 64 x 64, two stages of two blocks, windows of 4."""
    torch = pytest.importorskip("torch")
    from transformers import ClapAudioConfig, ClapAudioModelWithProjection

    config = ClapAudioConfig(
        num_mel_bins=16,
        spec_size=64,
        window_size=4,
        patch_embeds_hidden_size=16,
        depths=[2, 2],
        num_attention_heads=list(HEADS),
        hidden_size=32,
        projection_dim=24,
        enable_fusion=False,
    )
    torch.manual_seed(0)
    model = ClapAudioModelWithProjection(config).eval()
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.dtype == torch.float32:
                value.normal_(1.0 if "norm.weight" in name else 0.0, 0.15)
            if name.endswith("running_var"):
                value.abs_().add_(0.3)
    return model, {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_the_network_equals_torch(published: tuple[object, Arrays]) -> None:
    torch = pytest.importorskip("torch")
    model, arrays = published
    mel = np.random.default_rng(0).normal(-30, 20, (2, 251, 16)).astype(np.float32)
    with torch.no_grad():
        wanted = model(input_features=torch.tensor(mel)[:, None]).audio_embeds.numpy()
    weights, sizes = clap.arranged(arrays, "random")
    assert sizes == clap.Sizes(16, (2, 2), HEADS, 4, 4)
    network = jax.jit(clap.network, static_argnums=1)
    found = np.asarray(network(weights, sizes, jnp.asarray(mel)))
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_names_of_laion_are_the_same_weights(published: tuple[object, Arrays]) -> None:
    renamed: Arrays = {}
    arrays = published[1]
    for name, array in arrays.items():
        if ".attention.self.key." in name or ".attention.self.value." in name:
            continue
        other = name
        if ".attention.self.query." in name:
            array = np.concatenate([arrays[name.replace("query", p)] for p in ("query", "key", "value")])
            other = name.replace(".attention.self.query.", ".attn.qkv.")
        for theirs, ours in (
            ("audio_branch.", "audio_model.audio_encoder."),
            (".bn0.", ".batch_norm."),
            (".norm1.", ".layernorm_before."),
            (".norm2.", ".layernorm_after."),
            (".mlp.fc1.", ".intermediate.dense."),
            (".attn.proj.", ".attention.output.dense."),
            (".attn.relative_position_bias_table", ".attention.self.relative_position_bias_table"),
            ("audio_projection.0.", "audio_projection.linear1."),
            ("audio_projection.2.", "audio_projection.linear2."),
            (".mlp.fc2.", ".output.dense."),
        ):
            other = other.replace(ours, theirs)
        renamed[f"module.{other}"] = array
    ours, theirs = clap.arranged(arrays, "a"), clap.arranged(renamed, "b")
    assert ours[1] == theirs[1]
    assert ours[0].keys() == theirs[0].keys()
    for name, value in ours[0].items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(theirs[0][name]))


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_the_front_end_equals_the_published_one() -> None:
    pytest.importorskip("torch")
    from transformers import ClapFeatureExtractor

    wave = np.random.default_rng(0).normal(0, 0.1, clap.SPAN).astype(np.float32)
    extract = ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50)
    wanted = extract(wave, sampling_rate=clap.RATE, return_tensors="np")["input_features"][0, 0]
    found = np.asarray(clap.log_mel(jnp.asarray(wave)[None]))[0]
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the weights of CLAP"):
        clap.arranged({"x": np.zeros(2)}, "x")
    fused = {"audio_branch.patch_embed.mel_conv2d.weight": np.zeros(2)}
    with pytest.raises(ValueError, match="without"):
        clap.arranged(fused, "x")
