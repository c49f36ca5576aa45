import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.checkpoint import load_state, save_state
from mfm_jax.layers.mixture import MixtureConfig
from mfm_jax.layers.xlstm import XLSTMConfig
from mfm_jax.models.conditions import Conditions, bar_lag, bar_ticks, unknown
from mfm_jax.models.generator import Generator, GeneratorConfig, LevelConfig, tick_context
from mfm_jax.models.generator_sampling import SAMPLING, Course, Sampling, seeds_of, start, wishless, write
from mfm_jax.models.plan import Plan, delay, place_features
from mfm_jax.models.summaries import BeatCoderConfig

B, N, D = 2, 8, 4


def level(width, group):
    stack = XLSTMConfig(layers=1, width=8, heads=2, igate_bias=0.0, chunk=8)
    return LevelConfig(xlstm=stack, mixture=MixtureConfig(width=width, group=group, components=2, hidden=4))


CONFIG = GeneratorConfig(
    section=level(8, 4),
    beat=level(6, 3),
    tick=level(D, 4),
    coder=BeatCoderConfig(latent=D, hidden=(8,), wide=8, width=6),
    text_width=5,
    text_tokens=3,
    condition_width=6,
    section_width=4,
    section_hidden=6,
    max_sections=8,
)


def wishes(**said):
    return unknown(B, CONFIG.text_width, CONFIG.text_tokens)._replace(**said)


def plan_of(n=N):
    beat = jnp.broadcast_to(jnp.arange(n)[None], (B, n))
    shape = (B, n)
    return Plan(
        section=beat // 4,
        position=(beat % 4).astype(float),
        length=jnp.full(shape, 4.0),
        label=beat // 4 % 5,
        facts=jax.random.normal(jax.random.key(9), (*shape, 4)),
        phase=(beat * 12 % 48).astype(float),
        bar=jnp.full(shape, 48.0),
        passed=beat.astype(float),
        mask=jnp.ones(shape, bool),
        n_sections=jnp.full((B,), n // 4),
        lag=jnp.full((B,), 4),
    )


@pytest.fixture(scope="module")
def params():
    z = jax.random.normal(jax.random.key(1), (B, N, 12, D))
    made = jax.jit(Generator(CONFIG).init)(jax.random.key(0), wishes(), plan_of(), z)["params"]
    keys = iter(jax.random.split(jax.random.key(5), 1000))
    # Off the initialisation, whose zeros would hide dependence.
    return jax.tree.map(lambda a: a + 0.1 * jax.random.normal(next(keys), a.shape), made)


def call(params, method, *args):
    return Generator(CONFIG).apply({"params": params}, *args, method=method)


def test_beats_see_only_the_past(params):
    beats = jax.random.normal(jax.random.key(2), (B, N, 6))
    told = jax.random.normal(jax.random.key(3), (B, 2, CONFIG.section_width))

    def at_five(beats):
        return call(params, "beat_log_prob", wishes(), plan_of(), beats, told)[:, 5].sum()

    reach = jnp.abs(jax.jit(jax.grad(at_five))(beats)).sum((0, 2))
    assert (reach[:6] > 0).all()
    assert (reach[6:] == 0).all()


def test_ticks_see_only_the_past_and_their_beat(params):
    beats = jax.random.normal(jax.random.key(2), (B, 2, 6))
    z = jax.random.normal(jax.random.key(3), (B, 24, D))

    def at_tick(beats, z):
        return call(params, "tick_log_prob", wishes(), beats[:, 0], beats, z)[:, 10].sum()

    by_beat, by_tick = jax.jit(jax.grad(at_tick, (0, 1)))(beats, z)
    reach = jnp.abs(by_tick).sum((0, 2))
    assert (reach[:11] > 0).all()
    assert (reach[11:] == 0).all()
    assert (jnp.abs(by_beat[:, 1]) == 0).all()


def test_sections_are_summaries_of_their_own_beats(params):
    beats = jax.random.normal(jax.random.key(2), (B, N, 6))

    def second(beats):
        return call(params, "summarise", beats, plan_of(), 2)[:, 1, 0].sum()

    reach = jnp.abs(jax.grad(second)(beats)).sum((0, 2))
    assert (reach[:4] == 0).all()
    assert (reach[4:] > 0).all()


def test_padding_of_text_leaves_no_trace(params):
    tokens = jax.random.normal(jax.random.key(4), (B, 3, 5))
    mask = jnp.array([[True, True, False]] * B)

    def read(tokens, mask):
        return call(params, lambda net: net.beat.level.read(tokens, mask))

    padded = read(tokens, mask)
    short = read(tokens[:, :2], mask[:, :2])
    for a, b in zip(jax.tree.leaves(padded), jax.tree.leaves(short)):
        assert np.allclose(a, b, atol=1e-5)
    nothing = read(tokens, jnp.zeros_like(mask))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(nothing))


def test_every_wish_reaches_every_level(params):
    said = {
        "text_pooled": jnp.ones((B, 5)),
        "instruments": jnp.ones((B, 19)),
        "tempo": jnp.full((B,), 90.0),
        "metre": jnp.full((B, 2), 4.0),
        "key": jnp.full((B,), 3),
        "density": jnp.full((B,), 2.0),
        "polyphony": jnp.full((B,), 3.0),
        "register": jnp.full((B,), 70.0),
        "beats": jnp.full((B,), 64.0),
    }
    assert said.keys() | {"text_tokens", "text_mask"} == set(Conditions._fields)
    for name in ("section", "beat", "tick"):
        encode = jax.jit(lambda c, n=name: call(params, lambda net: getattr(net, n).conditions(c)))
        silent = encode(wishes())
        for wish, value in said.items():
            assert (encode(wishes(**{wish: value})) != silent).any(), (name, wish)


def made(params, n=N, seeds=(1, 2), batch=slice(None), sampling=SAMPLING):
    conditions = wishes(beats=jnp.full((B,), 16.0), tempo=jnp.array([60.0, 120.0]))
    conditions = jax.tree.map(lambda a: a[batch], conditions)
    keys = seeds_of(seeds)
    bars, lags = jnp.full((B,), 48.0)[batch], jnp.full((B,), 4)[batch]
    without = None if sampling.guidance == 1 else wishless(conditions)
    state = start(CONFIG, params, conditions, bars, lags, keys, without)
    return conditions, state, keys, write(CONFIG, params, conditions, state, keys, n, sampling, without)


def test_writing_in_two_calls_is_writing_in_one(params):
    conditions, state, keys, (whole, _) = made(params)
    first, between = write(CONFIG, params, conditions, state, keys, N // 2)
    second, _ = write(CONFIG, params, conditions, between, keys, N // 2)
    assert np.allclose(whole.z, jnp.concatenate([first.z, second.z], 1), atol=1e-5)
    assert (whole.section == jnp.concatenate([first.section, second.section], 1)).all()


def test_an_example_does_not_depend_on_its_neighbours(params):
    both, alone = made(params)[3][0], made(params, seeds=(2,), batch=slice(1, 2))[3][0]
    assert np.allclose(both.z[1:], alone.z, atol=1e-4)
    assert (both.label[1:] == alone.label).all()
    assert not np.allclose(both.z[0], both.z[1], atol=0.1)


def test_same_seed_same_bytes(params):
    assert (made(params)[3][0].z == made(params)[3][0].z).all()


def test_state_does_not_grow(params):
    _, before, _, (_, after) = made(params)
    shapes = jax.tree.map(jnp.shape, before)
    assert shapes == jax.tree.map(jnp.shape, after)


def test_sections_follow_the_plan(params):
    music, state = made(params, n=16)[3]
    for row in range(B):
        starts = np.flatnonzero(np.asarray(music.position[row]) == 0)
        lengths = np.asarray(music.length[row])[starts]
        assert starts[0] == 0
        assert lengths.sum() == 16
        assert ((lengths >= 4) & (lengths <= 32)).all()
        assert len(starts) == state.n_sections[row]


def test_steps_and_whole_sequence_agree(params):
    """The state after writing beat by beat is that of one parallel pass over what was written."""
    conditions, _, _, (music, state) = made(params)
    index = jnp.broadcast_to(jnp.arange(float(N))[None], (B, N))
    plan = Plan(
        section=music.section,
        position=music.position,
        length=music.length,
        label=music.label,
        facts=music.vector[..., CONFIG.section_width :],
        phase=index * 12 % 48,
        bar=jnp.full((B, N), 48.0),
        passed=index,
        mask=jnp.ones((B, N), bool),
        n_sections=state.n_sections,
        lag=jnp.full((B,), 4),
    )

    def parallel(net):
        before = jnp.pad(music.beats, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        features = net.beat.features(
            net.beat.conditions(conditions),
            before,
            delay(music.beats, plan.lag),
            delay(music.beats, 4 * plan.lag),
            music.vector,
            place_features(plan, conditions.beats),
        )
        echo = net.beat.heard(delay(music.beats, 2 * plan.lag), delay(music.beats, 8 * plan.lag))
        beat = net.beat.level(features, None, echo)[1]
        z = music.z
        latents = jnp.concatenate([jnp.zeros((B, 1, 6)), music.beats], 1)
        proposal = net.coder.decode(latents[:, :-1], latents[:, 1:]).reshape(z.shape)
        told = net.tick.conditions(conditions)
        features = net.tick.features(
            told, jnp.pad(z, ((0, 0), (1, 0), (0, 0)))[:, :-1], proposal, tick_context(music.beats)
        )
        return beat, net.tick.level(features, None)[1]

    beat, tick = call(params, parallel)
    for a, b in zip(jax.tree.leaves(beat), jax.tree.leaves(state.beat_level)):
        assert np.allclose(a, b[:, :B], atol=1e-3)
    for a, b in zip(jax.tree.leaves(tick), jax.tree.leaves(state.tick_level)):
        assert np.allclose(a, b, atol=1e-3)


def test_guidance_leans_on_the_wishes(params):
    mild, strong = (made(params, sampling=Sampling(guidance=g))[3][0] for g in (1.5, 4.0))
    assert not np.allclose(mild.beats, strong.beats)


def test_guidance_needs_a_state_made_for_it(params):
    conditions, state, keys, _ = made(params)
    with pytest.raises(ValueError, match="guided=False"):
        write(CONFIG, params, conditions, state, keys, N, SAMPLING, wishless(conditions))


@pytest.mark.slow
def test_a_passage_changes_what_is_asked_and_begins_a_section(params):
    first, second = wishes(beats=jnp.full((B,), 16.0)), wishes(tempo=jnp.full((B,), 190.0))
    keys = seeds_of((1, 2))
    state = start(CONFIG, params, first, jnp.full((B,), 48.0), jnp.full((B,), 4), keys)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)
    later = jnp.broadcast_to(jnp.arange(N) >= 4, (B, N))
    course = Course(
        jnp.stack([~later, later]).astype(float),
        jnp.broadcast_to(jnp.arange(N) == 4, (B, N)),
        jnp.where(later, 36.0, 48.0),
        jnp.where(later, 3, 4),
    )
    music, after = write(CONFIG, params, both, state, keys, N, course=course)
    plain, _ = write(CONFIG, params, first, state, keys, N)
    assert np.allclose(music.z[:, :48], plain.z[:, :48], atol=1e-5)
    assert not np.allclose(music.z[:, 48:], plain.z[:, 48:], atol=1e-2)
    assert (music.position[:, 4] == 0).all()
    assert (after.phase == 12).all()  # four beats into bars of three


def test_a_state_that_was_saved_goes_on(params, tmp_path):
    conditions, state, keys, (whole, _) = made(params)
    first, between = write(CONFIG, params, conditions, state, keys, N // 2)
    save_state(tmp_path / "state.safetensors", (between, keys))
    loaded, loaded_keys = load_state(tmp_path / "state.safetensors", (state, keys))
    second, _ = write(CONFIG, params, conditions, loaded, loaded_keys, N // 2)
    assert np.allclose(whole.z, jnp.concatenate([first.z, second.z], 1), atol=1e-5)


def test_a_state_of_another_size_is_refused(params, tmp_path):
    _, state, keys, _ = made(params)
    save_state(tmp_path / "state.safetensors", (state, keys))
    with pytest.raises(ValueError, match=r"passed.*\(2,\).*\(1,\)"):
        load_state(tmp_path / "state.safetensors", (state._replace(passed=state.passed[:1]), keys))


def test_bars():
    assert [bar_ticks(m) for m in ((4, 4), (3, 4), (6, 8), (3, 8))] == [48, 36, 36, 18]
    assert [bar_lag(t) for t in (48.0, 36.0, 18.0, 24.0)] == [4, 3, 3, 2]
    with pytest.raises(ValueError, match="metre 4/5"):
        bar_ticks((4, 5))


def test_levels_must_meet():
    with pytest.raises(ValueError, match=r"beat\.mixture\.width"):
        GeneratorConfig(
            section=level(8, 4), beat=level(5, 5), tick=level(D, 4), coder=CONFIG.coder, section_width=4
        )
