"""RAVE's encoders: which layers they are made of."""

from mfm_jax.models.rave_config import EncoderV1Config, EncoderV2Config, RaveConfig
from mfm_jax.models.rave_layers import Activation, Conv, Layer, Norm, Residual


def encoder_layers(config: RaveConfig) -> tuple[Layer, ...]:
    """List the layers from the source to the latent's raw numbers."""
    outputs = 2 if config.latent.kind == "variational" else 1
    if isinstance(config.encoder, EncoderV1Config):
        return _first(config.encoder, config.latent.size, outputs)
    return _second(config.encoder, config.latent.size * outputs)


def _first(part: EncoderV1Config, latent: int, outputs: int) -> tuple[Layer, ...]:
    bias, width = part.bias, part.capacity
    layers: list[Layer] = [Conv("enter", width, 7, bias=bias)]
    for level, ratio in enumerate(part.ratios):
        layers += [_norm(part, f"norm_{level}"), Activation()]
        width *= 2
        layers.append(Conv(f"down_{level}", width, 2 * ratio + 1, ratio, bias=bias))
        for again in range(1, part.repeats):
            layers += [_norm(part, f"norm_{level}_{again}"), Activation()]
            layers.append(Conv(f"repeat_{level}_{again}", width, 3, bias=bias))
    return (*layers, Activation(), Conv("leave", latent * outputs, 5, groups=outputs, bias=bias))


def _norm(part: EncoderV1Config, name: str) -> Norm:
    return Norm("" if part.sample_norm else name)


def _second(part: EncoderV2Config, outputs: int) -> tuple[Layer, ...]:
    width = part.capacity
    layers: list[Layer] = [Conv("enter", width, 2 * part.kernel + 1)]
    for level, (ratio, dilations) in enumerate(zip(part.ratios, part.dilations, strict=True)):
        for number, dilation in enumerate(dilations):
            name = f"unit_{level}_{number}"
            layers.append(unit(name, width, part.kernel, dilation, part.unit_snake))
        layers.append(snake(f"snake_{level}", part.snake))
        width *= ratio if part.keep_dim else 2
        layers.append(Conv(f"down_{level}", width, 2 * ratio, ratio))
    layers.append(snake("snake_last", part.snake))
    return (*layers, Conv("leave", outputs, part.kernel))


def snake(name: str, learned: bool) -> Activation:
    """Give a learned activation of this name, or the leaky rectifier."""
    return Activation(name if learned else "")


def unit(name: str, width: int, size: int, dilation: int, learned: bool) -> Residual:
    """Give a residual unit: a dilated convolution and a projection, each after an activation."""
    return Residual(
        name,
        (
            snake("snake_wide", learned),
            Conv("wide", width, size, dilation=dilation),
            snake("snake_project", learned),
            Conv("project", width, 1),
        ),
    )
