from pathlib import Path

import jax
import numpy as np
import pytest

from mfm_jax import cli, load_vae
from mfm_jax.checkpoint import save_weights
from mfm_jax.config import build, to_dict
from mfm_jax.convert.rave import convert
from mfm_jax.dsp.pqmf import filter_bank
from mfm_jax.inference import rave as frozen
from mfm_jax.models import rave
from mfm_jax.models.rave import Rave, bank_delay, decode_start, encode_start
from mfm_jax.models.rave_config import (
    DecoderV1Config,
    DecoderV2Config,
    EncoderV1Config,
    EncoderV2Config,
    LatentConfig,
    MelConfig,
    NoiseConfig,
    RaveConfig,
)
from mfm_jax.models.rave_mel import hann, mel_filters
from mfm_jax.music.audio import read_audio, write_audio

GOLDEN = Path(__file__).parents[1] / "golden" / "rave"
V1 = RaveConfig(
    bands=4,
    taps=128,
    encoder=EncoderV1Config(ratios=(4, 2), capacity=2),
    latent=LatentConfig(size=4),
    decoder=DecoderV1Config(ratios=(4, 2), capacity=2, dilations=((3, 1),), noise=NoiseConfig(ratios=(2, 2))),
)
V2 = {
    "bands": 4,
    "taps": 128,
    "encoder": EncoderV2Config(ratios=(4, 2), capacity=2, dilations=((1, 3), (1,))),
    "latent": LatentConfig(size=4),
    "decoder": DecoderV2Config(
        ratios=(4, 2),
        capacity=2,
        dilations=((1, 3), (1,)),
        noise=NoiseConfig(ratios=(4, 4), spectrum=9, hidden=2),
    ),
}
HYBRID = RaveConfig(
    bands=4,
    taps=128,
    source=MelConfig(window=64, hop=16, bands=8),
    encoder=EncoderV2Config(ratios=(2,), capacity=2, dilations=((1,),)),
    latent=LatentConfig(size=4),
    decoder=DecoderV2Config(ratios=(4, 2), capacity=2, dilations=((1,), (1,)), recurrent=1),
)
CONFIGS = {
    "centred v1": V1,
    "causal v2": RaveConfig(causal=True, **V2),
    "centred stereo v2 with odd ratios": RaveConfig(
        channels=2,
        bands=4,
        taps=128,
        encoder=EncoderV2Config(ratios=(3, 1), capacity=2, dilations=((1,), (3,))),
        latent=LatentConfig(size=4),
        decoder=DecoderV2Config(ratios=(3, 1), capacity=2, dilations=((1,), (3,)), snake=True),
    ),
    "mel and recurrent": HYBRID,
}


def opened(config, seed=0):
    """A model with random weights, loud enough that a difference would show."""
    module = Rave(config)
    shape = (1, config.channels, 64 * config.hop)
    params = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, np.float32))["params"]
    rng = np.random.default_rng(seed)
    designed = {"bank": filter_bank(config.bands, config.attenuation), "axes": np.eye(4, dtype=np.float32)}
    if isinstance(config.source, MelConfig):
        designed["window"] = hann(config.source.window)
        designed["filters"] = mel_filters(config.sample_rate, config.source)

    def draw(path, like):
        name = path[-1].key
        if name in designed:
            return designed[name]
        if name.endswith(("var", "alpha")):
            return rng.uniform(0.5, 1.5, like.shape).astype(np.float32)
        loud = 12.0 if any(part.key == "noise" for part in path) else 1.0  # heard beside the wave
        scale = loud / np.sqrt(max(1, like.size / like.shape[-1]))
        return (scale * rng.standard_normal(like.shape)).astype(np.float32)

    return frozen.FrozenRave(module, jax.tree_util.tree_map_with_path(draw, params))


def decibels(made, wanted):
    """Signal to error ratio."""
    made, wanted = (np.asarray(values, np.float64) for values in (made, wanted))
    assert made.shape == wanted.shape
    return 10 * np.log10(np.sum(wanted**2) / max(np.sum((made - wanted) ** 2), 1e-30))


SLOW = ("centred stereo v2 with odd ratios", "mel and recurrent")


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CONFIGS],
    scope="module",
)
def model(request):
    return opened(CONFIGS[request.param])


def test_blocks_equal_the_whole(model, monkeypatch):
    config, module = model.config, model.module
    monkeypatch.setattr(frozen, "BLOCK_SAMPLES", 4 * config.hop)
    rng = np.random.default_rng(1)
    samples = 42 * config.hop - 5
    shape = (2, samples) if config.channels == 1 else (2, config.channels, samples)
    wave = 0.3 * rng.standard_normal(shape).astype(np.float32)
    variables = {"params": model.params}
    mean, std = jax.jit(lambda v, x: module.apply(v, x, method="encode"))(variables, wave)
    made_mean, made_std = model.encode(wave)
    assert made_mean.shape == (2, 42, config.latent_dim)
    assert min(decibels(made_mean, mean), decibels(made_std, std)) > 115
    noise = rng.uniform(-1, 1, (*shape[:-1], 42 * config.hop)).astype(np.float32)
    sound = jax.jit(lambda v, z, n: module.apply(v, z, n, method="decode"))(variables, mean, noise)
    assert decibels(model.decode(mean, noise), sound) > 115
    np.testing.assert_allclose(model.decode(mean, noise), sound, atol=1e-5)
    if config.decoder.noise is not None:
        assert decibels(model.decode(mean), sound) < 60


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 6])
def test_a_causal_stream_by_hand(size):
    model = opened(CONFIGS["causal v2"])
    config, module, variables = model.config, model.module, {"params": model.params}
    rng = np.random.default_rng(2)
    frames = 30
    wave = rng.standard_normal((1, frames * config.hop)).astype(np.float32)
    latent = np.asarray(model.encode(wave)[0])
    noise = rng.uniform(-1, 1, wave.shape).astype(np.float32)
    whole = np.asarray(model.decode(latent, noise))
    into, late = encode_start(config, 1)
    assert late == 0
    out, delay = decode_start(config, 1)
    encode = jax.jit(lambda v, x, s: module.apply(v, x, s, method="encode_block"))
    decode = jax.jit(lambda v, z, n, s: module.apply(v, z, n, s, method="decode_block"))
    heard, played = [], []
    for start in range(0, frames, size):
        cut = slice(start * config.hop, (start + size) * config.hop)
        (mean, _), into = encode(variables, wave[:, cut], into)
        block, out = decode(variables, latent[:, start : start + size], noise[:, cut], out)
        heard.append(np.asarray(mean))
        played.append(np.asarray(block))
    assert decibels(np.concatenate(heard, 1), latent) > 120
    streamed = np.concatenate(played, 1)[:, delay:]
    assert 0 < delay < 2 * config.hop
    assert decibels(streamed, whole[:, : streamed.shape[1]]) > 120
    assert bank_delay(config) == 128 + config.bands


@pytest.mark.slow
def test_a_long_stream_forgets_where_it_began(monkeypatch):
    model = opened(CONFIGS["causal v2"])
    monkeypatch.setattr(rave, "LAP", 64)
    monkeypatch.setattr(frozen, "BLOCK_SAMPLES", 4 * model.hop)
    wave = np.random.default_rng(3).standard_normal((1, 200 * model.hop)).astype(np.float32)
    jax.clear_caches()
    mean, _ = model.encode(wave)
    whole = jax.jit(lambda v, x: model.module.apply(v, x, method="encode")[0])({"params": model.params}, wave)
    assert decibels(mean, whole) > 115
    jax.clear_caches()


def test_load_vae_and_the_forms_of_noise(tmp_path):
    convert(GOLDEN / "v1.ckpt", tmp_path, sample_rate=44_100)
    vae = load_vae(tmp_path)
    expected = np.load(GOLDEN / "v1.npz")
    assert (vae.sample_rate, vae.hop, vae.latent_dim, vae.channels) == (44_100, 32, 4, 2)
    mono = expected["x"][:, 0]
    np.testing.assert_array_equal(vae.encode(mono)[0], vae.encode(np.stack([mono, mono], 1))[0])
    with pytest.raises(ValueError, match="mix it"):
        vae.encode(np.zeros((1, 3, 64), np.float32))
    latent = expected["z_dec_in"].swapaxes(1, 2)
    with pytest.raises(ValueError, match="this model has 4"):
        vae.decode(latent[..., :3])
    assert vae.decode(latent).shape == (1, 2, latent.shape[1] * 32)
    seeded = vae.decode(latent, 7)
    np.testing.assert_array_equal(seeded, vae.decode(latent, 7))
    assert float(abs(seeded - vae.decode(latent, jax.random.key(8))).max()) > 1e-4
    assert vae.decode(latent[:, :0]).shape == (1, 2, 0)


def test_reconstruct_with_a_converted_model(tmp_path, capsys):
    convert(GOLDEN / "v2_causal.ckpt", tmp_path / "model", causal=True, sample_rate=32_000)
    time = np.arange(20_000) / 44_100
    write_audio(tmp_path / "a.wav", (0.3 * np.sin(2_000 * time)).astype(np.float32))
    told = ["--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    assert cli.main(["reconstruct", str(tmp_path / "a.wav"), *told]) == 0
    wave = read_audio(tmp_path / "out" / "a.wav", 32_000)
    assert abs(len(wave) - 20_000 * 32_000 / 44_100) < 2
    assert (tmp_path / "out" / "a.json").is_file()
    assert not (tmp_path / "out" / "a.z.wav").exists()
    capsys.readouterr()
    save_weights(tmp_path / "model" / "codec.safetensors", {"a": np.zeros(1, np.float32)}, {})
    assert cli.main(["transcribe", str(tmp_path / "a.wav"), *told]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "4 numbers" in error


def test_config_survives_a_file():
    for config in CONFIGS.values():
        assert build(RaveConfig, to_dict(config)) == config


def test_parts_of_different_rates_are_refused():
    with pytest.raises(ValueError, match="change the ratios"):
        RaveConfig(encoder=EncoderV2Config(ratios=(4, 2), dilations=((1,), (1,))))
