import dataclasses
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_weights import random_params

from mfm_jax.checkpoint import flatten, load_weights
from mfm_jax.mesh import make_mesh
from mfm_jax.models.discriminator import DiscriminatorConfig, Judgement
from mfm_jax.models.rave_config import DecoderV1Config, EncoderV1Config, LatentConfig, RaveConfig
from mfm_jax.models.vae import VAE, VAEConfig
from mfm_jax.models.vae_heads import SpectralHeadConfig
from mfm_jax.models.vae_pqmf import PqmfConfig
from mfm_jax.models.vaes import vae_of
from mfm_jax.records import pack, shard_path, write_shard
from mfm_jax.training.data import ClipData
from mfm_jax.training.fidelity import figures, principal_axes
from mfm_jax.training.loop import TrainConfig, fit
from mfm_jax.training.optim import OptimConfig
from mfm_jax.training.receptive_field import Reach, margins, receptive_field
from mfm_jax.training.state import initial_state
from mfm_jax.training.step import make_turns
from mfm_jax.training.vae_adversarial import (
    AdversarialConfig,
    TwoPhaseObjective,
    feature_distance,
    judging,
    persuasion,
)
from mfm_jax.training.vae_run import VAERun, begin, make_objective, train
from mfm_jax.training.vae_wave import WaveLossConfig, WaveObjective

PART = PqmfConfig(bands=4, ratios=(2,), capacity=4, dilations=(1,), attenuation=40.0, noise_bands=0)
MODEL = VAEConfig(encoder=PART, head=PART, hop=8, latent_dim=4)
LOSSES = WaveLossConfig(sizes=(64,), band_sizes=(16,), filters=4, attenuation=40.0, kl_steps=4)
JUDGE = DiscriminatorConfig(scales=1, periods=(), capacity=4, layers=1)
BORDER, STEPS = 4, 9
OPTIM = OptimConfig(rate=1e-3, warmup=1, decay=0.0, ema=0.5)


@pytest.fixture(scope="module", autouse=True)
def kept_compiled_code(tmp_path_factory):
    """Let runs of the same model share what XLA made of it."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, (str(tmp_path_factory.mktemp("compiled")), 0.0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def two_phases(**changes):
    optim = OptimConfig(rate=3e-3, warmup=1, final=1.0, decay=0.0, ema=0.0)
    settings = {"discriminator": JUDGE, "after_steps": BORDER, "every": 3, "optim": optim, **changes}
    return TwoPhaseObjective(WaveObjective(MODEL, LOSSES), AdversarialConfig(**settings))


def clips(batch=2, samples=768):
    rng = np.random.default_rng(0)
    time = np.arange(samples) / 44_100
    while True:
        hz = 440 * 2 ** (rng.integers(0, 36, (batch, 1)) / 12)
        tones = 0.3 * np.sin(2 * np.pi * hz * time + rng.uniform(0, 6, (batch, 1)))
        yield {"audio": np.rint(32_767 * tones).astype(np.int16)}


def run(folder, **more):
    config = TrainConfig(steps=STEPS, optim=OPTIM, log_every=1, seed=5, sample_every=1)
    return fit(two_phases(), clips(), config, folder, **more)


def lines(folder):
    found = {}
    for text in (folder / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        found.setdefault(line["step"], {}).update(line)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run through both phases: its folder, averages after every step, and where `between` was called."""
    folder = tmp_path_factory.mktemp("whole")
    averages, borders = {}, []

    def sample(params, step):
        averages[step] = jax.device_get(params)

    run(folder, sample=sample, between=lambda params, step: borders.append(step))
    return folder, averages, borders


def same(one, other):
    return all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.mark.slow
def test_the_encoder_stays_from_the_second_phase_on_and_the_decoder_goes_on(whole):
    _, averages, borders = whole
    assert borders == [BORDER]
    encoders = {step: params["vae"]["encoder"] for step, params in averages.items()}
    assert not same(encoders[BORDER - 1], encoders[BORDER])
    first = BORDER + 1  # step 5, the decoder's: the average of what is frozen becomes what it is
    assert all(same(encoders[first], encoders[step]) for step in range(first, STEPS + 1))
    assert not same(averages[first]["vae"]["head"], averages[first + 1]["vae"]["head"])


@pytest.mark.slow
def test_every_nth_step_of_the_second_phase_is_the_discriminators(whole):
    _, averages, _ = whole
    judges = {step: params["discriminator"] for step, params in averages.items()}
    moved = [step for step in range(2, STEPS + 1) if not same(judges[step - 1], judges[step])]
    assert moved == [7]  # the step that begins at 6; 0 and 3 lie in the first phase
    assert same(averages[6]["vae"], averages[7]["vae"])


def test_the_losses_of_every_turn_have_the_names_of_their_weights(turns):
    objective, _, _, batch = turns
    for step, names in ((0, {"wave", "bands", "kl"}), (4, {"wave", "bands", "adversarial", "features"})):
        turn = objective.turn(step, 0.0).objective
        params = jax.eval_shape(objective.init, jax.random.key(0), batch)
        found, told = jax.eval_shape(turn.losses, params, batch, jax.random.key(0), jnp.int32(step))
        assert found.keys() == turn.weights.keys() == names
        assert "phase" in told


@pytest.mark.slow
def test_the_log_shows_the_phase_and_both_sides(whole):
    found = lines(whole[0])
    assert [found[step]["phase"] for step in (1, BORDER, BORDER + 1)] == [1, 1, 2]
    assert {"adversarial", "features", "kl"} <= found[BORDER + 1].keys()
    assert {"discriminator_real", "discriminator_fake", "discriminator_right"} <= found[7].keys()
    assert "wave" not in found[7]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [BORDER - 1, BORDER + 2])
def test_a_run_stopped_near_the_border_goes_on_with_the_same_losses(tmp_path, whole, stop):
    def stopping(params, step):
        if step == stop - 1:  # the step after the one that was sampled is the last
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        run(tmp_path, sample=stopping)
    assert max(lines(tmp_path)) == stop
    borders = []
    run(tmp_path, between=lambda params, step: borders.append(step))
    assert borders == ([BORDER] if stop < BORDER else [])
    one, other = lines(whole[0]), lines(tmp_path)
    assert one.keys() == other.keys() == set(range(1, STEPS + 1))
    for step in one:
        assert {n for n in one[step] if "time/" not in n} == {n for n in other[step] if "time/" not in n}
        for name in one[step].keys() - {"seconds"}:
            if "time/" in name:  # of this clock
                continue
            assert one[step][name] == other[step][name], (step, name)


def even(params):
    """Set every scale of a normed convolution to 1, where training begins."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.ones_like(leaf) if path[-1].key == "scale" else leaf, params
    )


@pytest.fixture(scope="module")
def turns():
    objective = two_phases()
    batch = jax.tree.map(jnp.asarray, next(clips()))
    params = even(random_params(lambda: {"params": objective.init(jax.random.key(0), batch)}, 0))

    def start():
        fresh = jax.tree.map(jnp.array, params)
        return initial_state(fresh, TrainConfig(optim=OPTIM), objective.optims)._replace(
            step=jnp.int32(BORDER)
        )

    turn_at = make_turns(objective, TrainConfig(optim=OPTIM), start(), {}, make_mesh())

    def at(step, minutes):
        turn, made = turn_at(step, minutes)
        return turn, lambda state, batch, rng, progress: made(state, {}, batch, rng, progress)

    return objective, start, at, batch


def test_the_decoders_gradient_does_not_reach_the_discriminator(turns):
    _, start, at, batch = turns
    before = jax.device_get(start())
    after, scalars = at(BORDER, 0.0)[1](start(), batch, jax.random.key(0), np.float32(0))
    assert np.isfinite(scalars["adversarial"])
    assert same(after.params["discriminator"], before.params["discriminator"])
    assert same(after.moments["discriminator"], before.moments["discriminator"])
    assert same(after.params["vae"]["encoder"], before.params["vae"]["encoder"])
    assert not same(after.params["vae"]["head"], before.params["vae"]["head"])


def test_the_discriminator_learns_to_tell_real_from_made(turns):
    _, start, at, batch = turns
    state = start()
    before = jax.device_get(state)
    step = at(6, 0.0)[1]
    seen = []
    for _ in range(60):
        state, scalars = step(state, batch, jax.random.key(0), np.float32(0))
        seen.append(float(scalars["loss"]))
    assert seen[-1] < 0.7 * seen[0]
    assert float(scalars["right"]) > 0.9
    assert same(state.params["vae"], before.params["vae"])
    assert same(state.moments["vae"], before.moments["vae"])


def test_adversarial_losses_are_those_of_the_papers():
    def said(scores):
        return [Judgement(jnp.asarray(row), (2.0 * jnp.asarray(row),)) for row in scores]

    real, fake = said([[0.5, 2.0], [-1.0, 1.0]]), said([[-2.0, 0.0], [1.0, 3.0]])
    found = judging(real, fake, "hinge")
    np.testing.assert_allclose([found["real"], found["fake"]], [(0.25 + 1.0) / 2, (0.5 + 3.0) / 2])
    assert persuasion(fake, "hinge") == pytest.approx(-(-1.0 + 2.0) / 2)
    found = judging(real, fake, "least_squares")
    np.testing.assert_allclose([found["real"], found["fake"]], [(0.625 + 2.0) / 2, (2.0 + 5.0) / 2])
    assert persuasion(fake, "least_squares") == pytest.approx((5.0 + 2.0) / 2)
    assert feature_distance(fake, real, "absolute") == pytest.approx((4.5 + 4.0) / 2)
    assert feature_distance(fake, real, "relative") == pytest.approx((4.5 / 2.5 + 4.0 / 2.0) / 2, rel=1e-5)


def test_the_crop_leaves_enough_of_a_short_clip():
    reach = Reach(300, 100)
    assert margins(reach, 1_000, 500, 16) == (288, 96)
    left, right = margins(reach, 600, 500, 16)
    assert left + right <= 100
    assert left > right > 0
    assert margins(reach, 500, 500, 16) == margins(reach, 100, 500, 16) == (0, 0)


def test_a_clip_shorter_than_the_receptive_field_is_compared_whole():
    objective = WaveObjective(MODEL, LOSSES)
    assert sum(objective.reach) > 2 * MODEL.hop
    batch = {"audio": jnp.ones((1, 2 * MODEL.hop)) * jnp.sin(jnp.arange(2.0 * MODEL.hop))[None]}
    assert objective.cropped(batch["audio"]).shape == batch["audio"].shape
    params = jax.eval_shape(objective.init, jax.random.key(0), batch)
    found, _ = jax.eval_shape(objective.losses, params, batch, jax.random.key(0), jnp.int32(0))
    assert found.keys() == objective.weights.keys()


def test_nothing_beyond_the_receptive_field_is_heard():
    left, right = receptive_field(MODEL)
    model, size, place = VAE(MODEL), 2_048, 1_024
    x = 0.1 * jax.random.normal(jax.random.key(0), (1, size))
    variables = {"params": random_params(lambda: model.init(jax.random.key(1), x), 1)}

    @jax.jit
    def passed(x):
        return model.apply(variables, model.apply(variables, x, method="encode")[0], method="decode")

    ends = x.at[:, : place - left].set(0.0).at[:, place + MODEL.hop + right :].set(0.0)
    block = slice(place, place + MODEL.hop)
    np.testing.assert_allclose(passed(x)[:, block], passed(ends)[:, block], atol=1e-6)
    inside = x.at[:, place - left // 4].add(1.0)
    assert float(jnp.abs(passed(x) - passed(inside))[:, block].max()) > 1e-6


def test_fidelity_is_that_of_principal_components():
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((500, 3)) @ rng.standard_normal((3, 6)) + 0.1 * rng.standard_normal(
        (500, 6)
    )
    axes = principal_axes(latents + 5.0)
    _, sizes, rows = np.linalg.svd(latents - latents.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(axes.fidelity, np.cumsum(sizes**2) / np.sum(sizes**2), rtol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(axes.components * rows, axis=1)), 1.0, atol=1e-4)
    told = figures(axes)
    assert told["dims_99"] == 3
    assert told["fidelity_4"] == pytest.approx(axes.fidelity[3])
    assert not principal_axes(np.ones((10, 4))).fidelity.any()


def test_the_kl_term_grows_geometrically():
    objective = WaveObjective(MODEL, WaveLossConfig(kl=1e-2, kl_from=1e-6, kl_steps=100))
    ramp = [float(objective.ramp(jnp.int32(step))) for step in (49, 99, 500)]
    np.testing.assert_allclose(ramp, [1e-2, 1.0, 1.0], rtol=1e-5)


@pytest.mark.slow
def test_a_run_keeps_the_weights_of_its_first_phase_and_the_axes_of_its_latent(tmp_path):
    wave = next(clips(batch=4, samples=256 * 6))["audio"]
    write_shard(shard_path(tmp_path, "clips", 0, 1), [pack({"audio": row}, {}) for row in wave])
    run = VAERun(
        clips=str(tmp_path),
        valid=str(tmp_path),
        out=str(tmp_path / "run"),
        model=MODEL,
        wave_losses=LOSSES,
        adversarial=AdversarialConfig(discriminator=JUDGE, after_steps=2, every=2),
        data=ClipData(batch=2, frames=3),
        train=TrainConfig(steps=4, optim=OPTIM, log_every=1),
    )
    last = load_weights(train(run))
    first = load_weights(tmp_path / "run" / "vae_phase_1.safetensors")
    assert (first.meta["steps"], last.meta["steps"]) == (2, 4)
    assert not same(first.params["head"], last.params["head"])
    axes = last.params["latent"]
    assert axes["components"].shape == (4, 4)
    np.testing.assert_allclose(axes["components"] @ axes["components"].T, np.eye(4), atol=5e-3)
    found = lines(tmp_path / "run")
    assert found[4]["valid/fidelity_4"] == pytest.approx(1.0)
    assert {"valid/lsd", "valid/mel", "valid/wave", "valid/dims_90"} <= found[2].keys() & found[4].keys()
    assert vae_of(last.config).config == MODEL
    assert begin(dataclasses.replace(run, begin=str(tmp_path / "run" / "vae.safetensors"))).keys() == {
        "encoder",
        "head",
    }


def test_a_rave_is_trained_but_for_its_filters_axes_and_statistics():
    encoder = EncoderV1Config(ratios=(2, 2), capacity=2)
    decoder = DecoderV1Config(ratios=(2, 2), capacity=2, dilations=((1,),), noise=None)
    model = RaveConfig(bands=4, taps=64, encoder=encoder, decoder=decoder, latent=LatentConfig(size=3))
    objective = WaveObjective(model, dataclasses.replace(LOSSES, keep=1.0))
    batch = {"audio": np.zeros((2, 256), np.int16)}
    params = jax.eval_shape(objective.init, jax.random.key(0), batch)
    found, _ = jax.eval_shape(objective.losses, params, batch, jax.random.key(0), jnp.int32(0))
    assert found.keys() == objective.weights.keys()
    fixed = {name.split("/")[-1] for name, free in flatten(objective.trainable(params)).items() if not free}
    assert {"bank", "axes", "center", "fidelity"} < fixed
    assert {name.rsplit("_", 1)[-1] for name in fixed - {"bank", "axes", "center", "fidelity"}} == {
        "mean",
        "var",
    }
    with pytest.raises(ValueError, match="only variational"):
        WaveObjective(dataclasses.replace(model, latent=LatentConfig(kind="spherical")), LOSSES)


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="never begins"):
        AdversarialConfig()
    with pytest.raises(ValueError, match="2 or more"):
        AdversarialConfig(after_steps=1, every=1)
    spectral = VAEConfig(head=SpectralHeadConfig(width=8, hidden=8))
    with pytest.raises(ValueError, match="no wave to judge"):
        make_objective(
            VAERun(clips="-", out="-", model=spectral, adversarial=AdversarialConfig(after_steps=1)), None
        )
