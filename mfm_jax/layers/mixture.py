"""Mixture-density output: a vector drawn group by group, each group a mixture of diagonal Gaussians.

The recipe is GIVT's (arXiv 2312.02116): continuous latents, a mixture of Gaussians at the output,
temperature at sampling, guidance on densities. One diagonal mixture over 64 or more dimensions
averages over modes, so the vector is cut into groups and each group is conditioned on those before it: a
small autoregression inside one step.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mfm_jax.config import config
from mfm_jax.layers.precision import narrow
from mfm_jax.layers.product import dense, grouped, product

LOG_TWO_PI = 1.8378770664093453
PROPOSALS = 12  # draws from each of the two densities, among which guidance chooses


class Draw(NamedTuple):
    """How freely to draw.

    Attributes:
        temperature: of the choice of a Gaussian; below 1 the likely ones come more often.
        spread: factor on the Gaussians' standard deviations (without the training noise).
        truncation: the likeliest Gaussians that make up this share are kept, others left out; 1 keeps all.
    """

    temperature: Float[Array, ""] | float = 1.0
    spread: Float[Array, ""] | float = 1.0
    truncation: Float[Array, ""] | float = 1.0


DRAW = Draw()


@config
class MixtureConfig:
    """Size of a grouped mixture head.

    Attributes:
        width: dimensions of the vector; a multiple of `group`.
        group: dimensions drawn together.
        components: Gaussians per group.
        hidden: width of each group's small network.
        noise: standard deviation of the noise that training adds to targets. Densities include it, samples
            leave it out.
    """

    width: int = 64
    group: int = 4
    components: int = 8
    hidden: int = 96
    noise: float = 0.3


def mixture_log_prob(
    x: Float[Array, "*G S"],
    logits: Float[Array, "*G K"],
    mean: Float[Array, "*G K S"],
    scale: Float[Array, "*G K S"],
) -> Float[Array, "*G"]:
    """Log density, in nats, of `x` [.., S] under K diagonal Gaussians."""
    z = (x[..., None, :] - mean) / scale
    gaussian = -0.5 * (z * z + LOG_TWO_PI).sum(-1) - jnp.log(scale).sum(-1)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits) + gaussian, axis=-1)


def mixture_sample(
    key: Key[Array, ""],
    logits: Float[Array, " K"],
    mean: Float[Array, "K S"],
    scale: Float[Array, "K S"],
    how: Draw = DRAW,
) -> Float[Array, " S"]:
    """Draw one vector [S]."""
    pick, draw = jax.random.split(key)
    chosen = jax.random.categorical(pick, _kept(logits / jnp.maximum(how.temperature, 1e-3), how.truncation))
    noise = jax.random.normal(draw, mean.shape[1:])
    which = jax.nn.one_hot(chosen, logits.shape[0], dtype=mean.dtype)
    return which @ mean + which @ scale * noise * how.spread


def _kept(logits: Float[Array, " K"], share: Float[Array, ""] | float) -> Float[Array, " K"]:
    """Refuse the least likely choices beyond a share of the probability; the likeliest always stays."""
    chances = jax.nn.softmax(logits)
    likelier = chances[None, :] > chances[:, None]
    before = (likelier * chances[None, :]).sum(1)
    return jnp.where(before < share, logits, -jnp.inf)


def guided_sample(
    key: Key[Array, ""],
    given: tuple[Float[Array, " K"], Float[Array, "K S"], Float[Array, "K S"]],
    without: tuple[Float[Array, " K"], Float[Array, "K S"], Float[Array, "K S"]],
    guidance: Float[Array, ""] | float,
    noise: float,
    how: Draw = DRAW,
) -> Float[Array, " S"]:
    """Draw one vector [S] from p_given^g p_without^(1 - g): classifier-free guidance of densities.

    GIVT (arXiv 2312.02116, "density-based CFG") rejects proposals of a wider mixture. Here a fixed number of
    draws of both densities is weighed by target over proposal, and one is picked (importance resampling), so
    that the work is the same at every step. Of one key, a stronger guidance picks the same draw or one that
    the wishes favour more.

    Args:
        key: random.
        given: logits, means and scales with the wishes.
        without: those without them.
        guidance: 1 is `given`, 0 `without`, above 1 leans further.
        noise: standard deviation that the densities include and draws leave out.
        how: temperature, spread and truncation of the draws.
    """
    draw, pick = jax.random.split(key)
    keys = jax.random.split(draw, (2, PROPOSALS))
    of_one = jax.vmap(mixture_sample, in_axes=(0, None, None, None, None))
    of_both = jax.vmap(of_one, in_axes=(0, 0, 0, 0, None))  # one program for both: it compiles sooner
    logits, mean, scale = (jnp.stack(pair) for pair in zip(given, without))
    draws = of_both(keys, logits, mean, scale, how).reshape(2 * PROPOSALS, -1)

    def log_density(m: tuple[Array, Array, Array]) -> Float[Array, " N"]:
        scale = jnp.sqrt(m[2] ** 2 + noise**2)
        return jax.vmap(lambda x: mixture_log_prob(x, m[0], m[1], scale))(draws)

    wanted, plain = log_density(given), log_density(without)
    weights = guidance * wanted + (1 - guidance) * plain - jnp.logaddexp(wanted, plain)
    return draws[jax.random.categorical(pick, weights)]


def split_outputs(
    out: Float[Array, "*G O"], components: int
) -> tuple[Float[Array, "*G K"], Float[Array, "*G K S"], Float[Array, "*G K S"]]:
    """Cut raw outputs into the logits, means and noise-free scales of K Gaussians."""
    logits, rest = out[..., :components], out[..., components:]
    mean, raw = jnp.split(rest.reshape(*out.shape[:-1], 2, components, -1), 2, axis=-3)
    return logits, mean[..., 0, :, :], jnp.exp(jnp.clip(raw[..., 0, :, :], -5.0, 2.0))


class GroupedMixture(nn.Module):
    """Density over vectors [.., width] given hidden features [.., D]; see the module docstring."""

    config: MixtureConfig

    def setup(self) -> None:
        """Name the parts."""
        c = self.config
        if c.width % c.group:
            raise ValueError(f"mixture width {c.width} must be a multiple of its group {c.group}")
        self.groups = c.width // c.group
        self.outputs = c.components * (1 + 2 * c.group)
        self.trunk = nn.Dense(self.groups * c.hidden, name="trunk", dot_general=dense)
        self.carry = self.param(
            "carry", nn.initializers.normal(c.width**-0.5), (c.width, self.groups * c.hidden)
        )
        self.head = self.param(
            "head", nn.initializers.normal(0.5 * c.hidden**-0.5), (self.groups, c.hidden, self.outputs)
        )
        self.bias = self.param("bias", self._spread_means, (self.groups, self.outputs))

    def _spread_means(self, key: Key[Array, ""], shape: tuple[int, int]) -> Float[Array, "G O"]:
        """Start with components apart (means ~ N(0, 1)) and wide (scale about 0.7)."""
        c = self.config
        means = jax.random.normal(key, (shape[0], c.components * c.group))
        zeros = jnp.zeros((shape[0], c.components))
        scales = jnp.full((shape[0], c.components * c.group), -0.4)
        return jnp.concatenate([zeros, means, scales], axis=-1)

    def __call__(
        self, hidden: Float[Array, "*B D"], x: Float[Array, "*B W"], base: Float[Array, "*B W"] | None = None
    ) -> Float[Array, "*B"]:
        """Log density, in nats, of `x`; `base` is added to every mean."""
        c = self.config
        group_of_row = jnp.arange(c.width) // c.group
        group_of_column = jnp.arange(self.groups * c.hidden) // c.hidden
        before = group_of_row[:, None] < group_of_column[None, :]
        carried = product(narrow(x), narrow(self.carry * before)).astype(x.dtype)
        inner = nn.gelu(self.trunk(hidden) + carried)
        # Groups first: each has weights of its own, and no product or density mixes them.
        inner = self._by_group(inner, c.hidden)
        out = grouped(narrow(inner), narrow(self.head)).astype(inner.dtype)
        out = out + jnp.expand_dims(self.bias, range(1, out.ndim - 1))
        logits, mean, scale = split_outputs(out, c.components)
        target = self._by_group(x if base is None else x - base, c.group)
        return mixture_log_prob(target, logits, mean, jnp.sqrt(scale**2 + c.noise**2)).sum(0)

    def _by_group(self, a: Float[Array, "*B GN"], size: int) -> Float[Array, "G *B N"]:
        return jnp.moveaxis(a.reshape(*a.shape[:-1], self.groups, size), -2, 0)

    def sample(
        self,
        hidden: Float[Array, "B D"],
        keys: Key[Array, " B"],
        how: Draw = DRAW,
        base: Float[Array, "B W"] | None = None,
        without: Float[Array, "B D"] | None = None,
        guidance: Float[Array, ""] | float = 1.0,
    ) -> Float[Array, "B W"]:
        """Draw one vector per example with its own key, so that a batch draws what each example would alone.

        Args:
            hidden: features [B, D].
            keys: one random key per example [B].
            how: how freely.
            base: added to the means [B, W].
            without: features of the same step without the wishes [B, D], for guidance.
            guidance: how far to lean towards `hidden` from `without`.
        """
        c = self.config
        carry = self.carry.reshape(self.groups, c.group, self.groups * c.hidden)
        head, bias = self.head, self.bias
        # With and without the wishes: both see the same groups drawn.
        start = jnp.stack([self.trunk(h) for h in (hidden, without) if h is not None])
        split_keys = jax.vmap(lambda key: jax.random.split(key, self.groups))(keys)

        def one(g: Array, carried: tuple[Array, Array]) -> tuple[Array, Array]:
            features, drawn = carried
            inner = nn.gelu(jax.lax.dynamic_slice_in_dim(features, g * c.hidden, c.hidden, axis=2))
            mixtures = [split_outputs(i @ head[g] + bias[g][None], c.components) for i in inner]
            if without is None:
                x = jax.vmap(lambda k, a, b, c: mixture_sample(k, a, b, c, how))(
                    split_keys[:, g], *mixtures[0]
                )
            else:
                x = jax.vmap(lambda k, a, b: guided_sample(k, a, b, guidance, c.noise, how))(
                    split_keys[:, g], *mixtures
                )
            if base is not None:
                x = x + jax.lax.dynamic_slice_in_dim(base, g * c.group, c.group, axis=1)
            return features + (x @ carry[g])[None], jax.lax.dynamic_update_slice_in_dim(
                drawn, x, g * c.group, axis=1
            )

        drawn = jnp.zeros((hidden.shape[0], c.width), hidden.dtype)
        return jax.lax.fori_loop(0, self.groups, one, (start, drawn))[1]
