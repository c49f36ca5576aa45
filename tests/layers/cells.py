"""What the tests of both cells share: a float32 cell against its float64 reference, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np


def assert_matches(cell, reference, inputs, state, reset):
    """Outputs and last state within 1e-4 (relative, norm by norm), gradients of all inputs within 2e-4.

    The objective reads the outputs and the last state. The reference's gradient is probed along random
    directions by central differences: for Gaussian directions the rms error of the projections estimates
    the norm of the error.
    """
    rng = np.random.default_rng(0)
    want = jax.tree.leaves(reference(*inputs, state=state, reset=reset))
    weights = [rng.normal(size=a.shape) for a in want]

    def objective(outputs):
        return sum((w * a).sum() for w, a in zip(weights, jax.tree.leaves(outputs)))

    def loss(tensors):
        outputs = cell(*tensors[0], state=tensors[1], reset=reset)
        return sum(jnp.sum(jnp.float32(w) * a) for w, a in zip(weights, jax.tree.leaves(outputs))), outputs

    tensors = jax.tree.map(jnp.float32, (tuple(inputs), state))
    (_, got), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(tensors)
    for a, b in zip(jax.tree.leaves(got), want):
        assert a.shape == b.shape
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b)

    leaves, tree = jax.tree.flatten((tuple(inputs), state))
    for place, slope in enumerate(jax.tree.leaves(gradient)):
        errors = []
        for _ in range(3):
            direction = rng.normal(size=slope.shape)
            ends = []
            for sign in (1, -1):
                moved = [a + sign * 1e-6 * direction if n == place else a for n, a in enumerate(leaves)]
                values, moved_state = jax.tree.unflatten(tree, moved)
                ends.append(objective(reference(*values, state=moved_state, reset=reset)))
            errors.append((ends[0] - ends[1]) / 2e-6 - np.sum(slope * direction))
        assert np.sqrt(np.mean(np.square(errors))) <= 2e-4 * np.linalg.norm(slope) + 1e-6


def relative(a, b):
    """Norm of the difference over the norm of b, over all leaves."""
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b)))
    return max(float(jnp.linalg.norm(p - q) / jnp.linalg.norm(q)) for p, q in pairs)
