import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.training.guards import CAUSES, GuardConfig, fresh_guard, judge

SETTINGS = GuardConfig(window=16, warmup=8, spike=10.0)


@pytest.fixture(scope="module")
def run():
    jitted = jax.jit(judge, static_argnums=3)

    def over(losses, norms=None, settings=SETTINGS):
        guard, verdicts = fresh_guard(settings), []
        for loss, norm in zip(losses, norms if norms is not None else np.ones(len(losses)), strict=True):
            sound, guard = jitted(guard, jnp.float32(loss), jnp.float32(norm), settings)
            verdicts.append(bool(sound))
        return verdicts, guard

    return over


def calm(steps, seed=0):
    return 2.0 + 0.1 * np.random.default_rng(seed).standard_normal(steps)


@pytest.mark.parametrize(
    ("loss", "norm", "cause"),
    [
        (np.nan, 1.0, "loss_not_finite"),
        (2.0, np.inf, "grad_not_finite"),
        (9.0, 1.0, "loss_spike"),
        (2.0, 50.0, "grad_spike"),
        (np.inf, np.nan, "loss_not_finite"),  # both: one cause is counted
    ],
)
def test_each_cause_is_skipped_and_counted(run, loss, norm, cause):
    verdicts, guard = run([*calm(30), loss, 2.0], [*np.ones(30), norm, 1.0])
    assert verdicts == [True] * 30 + [False, True]
    assert dict(zip(CAUSES, guard.skipped.tolist(), strict=True)) == {c: int(c == cause) for c in CAUSES}
    assert CAUSES[guard.cause] == cause
    assert guard.in_a_row == 0
    assert guard.accepted == 31


def test_before_the_warm_up_only_what_is_not_finite_is_skipped(run):
    verdicts, _ = run([2.0, 2.0, 900.0, np.nan, 2.0])
    assert verdicts == [True, True, True, False, True]


def test_calm_and_falling_losses_pass(run):
    losses = calm(300) + 20 * np.exp(-np.arange(300) / 30)
    norms = np.exp(np.random.default_rng(1).normal(0, 0.5, 300))
    verdicts, guard = run(losses, norms)
    assert all(verdicts)
    assert int(guard.skipped.sum()) == 0


def test_a_constant_loss_may_move_a_little(run):
    assert run([*[1.0] * 30, 1.005])[0][-1]
    assert not run([*[1.0] * 30, 1.5])[0][-1]


def test_spikes_do_not_widen_the_window(run):
    verdicts, guard = run([*calm(30), *[60.0] * 12])
    assert verdicts[30:] == [False] * 12
    assert guard.in_a_row == 12
    assert float(jnp.nanmax(guard.losses)) < 3


def test_a_negative_loss_may_fall(run):
    losses = -np.arange(60.0)
    assert all(run(losses)[0])
    assert not run([*losses, 500.0])[0][-1]


def test_zero_skips_no_spikes(run):
    verdicts, _ = run([*calm(30), 900.0, np.nan], settings=GuardConfig(window=16, warmup=8, spike=0.0))
    assert verdicts[-2:] == [True, False]


def test_the_window_forgets(run):
    losses = calm(400) + np.linspace(0, 30, 400)  # slow enough to follow
    assert all(run(losses, settings=GuardConfig(window=16, warmup=8, spike=20.0))[0])
