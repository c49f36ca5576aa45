"""Make RAVE checkpoints with expected results, by acids-rave itself, for the tests of the converter.

Runs in an environment of its own, as acids-rave wants old packages; this project is not imported. Recipe
(Python 3.11): torch, numpy 1.26, scipy 1.10, scikit-learn 1.3.2, numba 0.60, setuptools below 80, gin-config,
einops, lmdb, Flask, torchmetrics 0.11, and without their dependencies acids-rave 2.3.1, cached_conv,
pytorch-lightning 1.9.0, torchaudio, nn-tilde, udls, GPUtil, librosa; delete torchaudio's compiled library.

Usage: python tools/make_rave_golden.py OUT NAME --config v2 --config causal --set CAPACITY=4 [--channels 2]
           [--samples N] [--ema] [--script]
A folder OUT/NAME gets last.ckpt (or model.ts), config.gin and parity.npz. Weights are random; the
running statistics, the principal axes and the codebooks are too.
"""

import argparse
import copy
from pathlib import Path

import cached_conv as cc
import gin
import numpy as np
import rave
import scripts.export  # before gin reads anything: it adds configurables
import torch

BLOCK_SIZE = 2**14
LOUDER, NOISIER = 1.7, 4.0  # so that outputs are large enough for a difference to show


def main() -> None:
    """Build, save, and run the model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("name")
    parser.add_argument("--config", action="append", required=True, help="names of acids-rave's configs")
    parser.add_argument("--set", action="append", default=[], help="gin bindings")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--samples", type=int, default=BLOCK_SIZE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ema", action="store_true", help="with averaged weights beside")
    parser.add_argument("--cold", action="store_true", help="of the first phase: warmed_up is 0")
    parser.add_argument("--parametrized", action="store_true", help="weight norm under its newer names")
    parser.add_argument("--script", action="store_true", help="also model.ts, the export for nn~")
    parser.add_argument("--streaming", action="store_true", help="the export has caches")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    cc.use_cached_conv(options.streaming)
    gin.add_config_file_search_path(str(Path(rave.__file__).parent))
    names = [f"configs/{name}.gin" for name in options.config]
    bindings = [*options.set, f"model.RAVE.n_channels = {options.channels}"]
    gin.parse_config_files_and_bindings(names, bindings)
    model = rave.RAVE()
    folder = options.out / options.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.gin").write_text(gin.operative_config_str())
    randomise(model)
    model.eval()
    if not options.cold:
        model.encoder.set_warmed_up(True)
        model.decoder.set_warmed_up(True)
    if options.script:
        export(model, folder / "model.ts")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    training = ("discriminator", "audio_distance", "multiband_audio_distance")
    kept = {name: value for name, value in state.items() if not name.startswith(training)}
    if options.parametrized:
        kept = {renamed(name): value for name, value in kept.items()}
    callbacks: dict[str, object] = {"WarmupCallback": {"training_steps": 4}}
    if options.ema:
        averaged = {name: value.detach() * 1.5 for name, value in model.named_parameters()}
        callbacks["EMA"] = {name: value for name, value in averaged.items() if name in state and name in kept}
    checkpoint = {
        "epoch": 0,
        "global_step": 4,
        "pytorch-lightning_version": "1.9.0",
        "state_dict": kept,
        "callbacks": callbacks,
        "optimizer_states": [],
        "lr_schedulers": [],
    }
    torch.save(checkpoint, folder / "last.ckpt")
    if not options.streaming:
        np.savez_compressed(folder / "parity.npz", **results(model, options.channels, options.samples))
    print(folder, sum(value.numel() for value in kept.values()), "numbers")


def renamed(name: str) -> str:
    """Name a weight-norm part as torch.nn.utils.parametrizations does."""
    name = name.replace("weight_g", "parametrizations.weight.original0")
    return name.replace("weight_v", "parametrizations.weight.original1")


def randomise(model: torch.nn.Module) -> None:
    """Fill what a fresh model leaves trivial; weights get louder, so that differences would show."""
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith(("running_var", "alpha")):
            value.uniform_(0.5, 1.5)
        elif name.endswith("weight_g"):
            value.mul_(LOUDER)
        elif "noise_module.net" in name or "synth.branches.2.net" in name:
            value.mul_(NOISIER)
        elif name == "fidelity":
            value.copy_(torch.linspace(0.5, 1, len(value)))
        elif name == "latent_mean":
            value.normal_(0, 0.1)
        elif name == "latent_pca":
            value.copy_(torch.linalg.qr(torch.randn_like(value))[0])
        elif name.endswith(("embed", "embed_avg")):
            value.normal_(0, 0.05)
        elif name.endswith(("inited", "enabled")):
            value.fill_(1)


def results(model: rave.RAVE, channels: int, samples: int) -> dict[str, np.ndarray]:
    """Run the model: what goes in and what comes out at every stage."""
    rng = np.random.default_rng(1)
    time = np.arange(samples) / 44_100
    wave = 0.3 * np.sin(2 * np.pi * 220 * time * (1 + time)) + 0.05 * rng.standard_normal((channels, samples))
    x = torch.from_numpy(wave.astype(np.float32))[None]
    told: dict[str, torch.Tensor] = {"x": x}
    with torch.no_grad():
        raw = model.encode(x)
        told["z_raw"] = raw
        if isinstance(model.encoder, rave.blocks.VariationalEncoder):
            mean, scale = raw.chunk(2, 1)
            told["z_mean"], told["z_std"] = mean, torch.nn.functional.softplus(scale) + 1e-4
            latent = mean
        else:
            latent = model.encoder.reparametrize(raw)[0]
        told["z_dec_in"] = latent
        plain, torch.rand_like = torch.rand_like, lambda like: torch.full_like(like, 0.5)
        told["y_noise_off"] = model.decode(latent)
        drawn: list[torch.Tensor] = []

        def keep(like: torch.Tensor) -> torch.Tensor:
            drawn.append(plain(like))
            return drawn[-1]

        torch.rand_like = keep
        told["y_noise_stored"] = model.decode(latent)
        torch.rand_like = plain
        if drawn:
            told["noise_uniform"] = drawn[0] * 2 - 1
    return {name: value.numpy() for name, value in told.items()}


def export(model: rave.RAVE, path: Path) -> None:
    """Write the export for nn~, as acids-rave's own script does."""
    kinds = {
        rave.blocks.VariationalEncoder: scripts.export.VariationalScriptedRAVE,
        rave.blocks.DiscreteEncoder: scripts.export.DiscreteScriptedRAVE,
        rave.blocks.WasserteinEncoder: scripts.export.WasserteinScriptedRAVE,
        rave.blocks.SphericalEncoder: scripts.export.SphericalScriptedRAVE,
    }
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if hasattr(module, "weight_g"):
            torch.nn.utils.remove_weight_norm(module)
    scripted = kinds[type(twin.encoder)](pretrained=twin, fidelity=0.95)
    x = torch.zeros(1, twin.n_channels, BLOCK_SIZE)
    scripted.decode(scripted.encode(x))
    scripted.export_to_ts(str(path))


if __name__ == "__main__":
    main()
