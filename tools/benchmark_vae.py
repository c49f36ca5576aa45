"""RAVE here and in torch, side by side: the same weights and sound, in turn, on the same cores.

Every measurement is a process of its own, ours and torch's in turn. A process warms up (compiles) on a few
seconds, then encodes and decodes the whole; it tells CPU and wall seconds, and the peak of its memory above
what it held after the warm-up, and before it, with the weights loaded. acids-rave lives in an environment of
its own (see make_rave_golden.py); where it is missing, a row says so.

Usage: python tools/benchmark_vae.py [--rave-python PATH] [--kinds v1 v2 v2_small] [--seconds 60]
           [--cores 1 2] [--repeats 3] [--json FILE]
"""

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RATE = 44_100
WARM_SECONDS = 8.0
Row = dict[str, Any]


class Moment(NamedTuple):
    """Readings of the clocks."""

    cpu: float
    wall: float


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rave-python", type=Path, help="Python of an environment with acids-rave")
    parser.add_argument("--kinds", nargs="+", default=["v1", "v2", "v2_small"])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="gin bindings, such as CAPACITY=16")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--role", choices=["ours", "torch"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        run = ours if options.role == "ours" else torchs
        print(json.dumps(run(options.folder, options.seconds)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for kind in options.kinds:
            rows += compare(kind, Path(scratch), options)
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def compare(kind: str, scratch: Path, options: argparse.Namespace) -> list[Row]:
    """Measure one kind of model on each number of cores."""
    python = options.rave_python
    if python is None or not python.exists():
        return [{"kind": kind, "word": "acids-rave is missing: give --rave-python"}]
    make = [str(python), str(ROOT / "tools" / "make_rave_golden.py"), str(scratch), kind, "--config", kind]
    for binding in options.set:
        make += ["--set", binding]
    subprocess.run(make, check=True, capture_output=True)
    rows = []
    for cores in options.cores:
        found: dict[str, list[Row]] = {"ours": [], "torch": []}
        for _ in range(options.repeats):
            for role, runner in (("torch", str(python)), ("ours", sys.executable)):
                found[role].append(measured(role, runner, scratch / kind, cores, options.seconds))
        rows += [{"kind": kind, "cores": cores, "who": who, **best(runs)} for who, runs in found.items()]
    return rows


def measured(role: str, python: str, folder: Path, cores: int, seconds: float) -> Row:
    """Run one measurement in a process pinned to so many cores."""
    told = [python, str(Path(__file__).resolve()), "--role", role, "--folder", str(folder)]
    told += ["--seconds", str(seconds)]
    threads = {name: str(cores) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    places = sorted(os.sched_getaffinity(0))[:cores]
    made = subprocess.run(
        ["taskset", "-c", ",".join(map(str, places)), *told],
        env=os.environ | threads | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    if made.returncode:
        raise RuntimeError(f"{role}: {made.stderr[-2000:]}")
    row: Row = json.loads(made.stdout.splitlines()[-1])
    return row


def best(runs: list[Row]) -> Row:
    """Take the least of every figure: what disturbs only adds."""
    return {name: min(run[name] for run in runs) for name in runs[0]}


def ours(folder: Path, seconds: float) -> Row:
    """Measure this package."""
    import numpy as np

    from mfm_jax import load_vae
    from mfm_jax.convert.rave import convert

    if not (folder / "ours").exists():
        convert(folder / "last.ckpt", folder / "ours")
    vae = load_vae(folder / "ours")

    def once(wave: Any) -> list[Moment]:
        moments = [now()]
        latent = np.concatenate([mean for mean, _ in vae.encode_blocks([wave[None, None]])], axis=1)
        moments.append(now())
        for block in vae.decode_blocks([latent], 0):
            del block
        return [*moments, now()]

    return figures(once, seconds)


def torchs(folder: Path, seconds: float) -> Row:
    """Measure acids-rave."""
    import gin
    import rave
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    gin.parse_config_file(str(folder / "config.gin"))
    model = rave.RAVE()
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    model.load_state_dict(state, strict=False)
    model.eval()
    del model.discriminator
    for module in model.modules():
        if hasattr(module, "weight_g"):
            torch.nn.utils.remove_weight_norm(module)
    del state

    def once(wave: Any) -> list[Moment]:
        wave = torch.from_numpy(wave)[None, None]
        moments = [now()]
        with torch.inference_mode():
            latent = model.encode(wave).chunk(2, 1)[0]
            moments.append(now())
            model.decode(latent)
        return [*moments, now()]

    return figures(once, seconds)


def figures(once: Callable[[Any], list[Moment]], seconds: float) -> Row:
    """Warm up, then run the whole: seconds of CPU and wall, and MB above what was held before each."""
    wave = sound(seconds)
    cold = settled()
    once(wave[: round(WARM_SECONDS * RATE) // 2**14 * 2**14])
    warmed = memory()
    warm = settled()
    before, middle, after = once(wave)
    peak = memory()
    return {
        "encode_cpu": middle.cpu - before.cpu,
        "decode_cpu": after.cpu - middle.cpu,
        "wall": after.wall - before.wall,
        "extra_mb": peak - warm,
        "extra_mb_cold": max(warmed, peak) - cold,
    }


def now() -> Moment:
    """Read the clocks."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Moment(usage.ru_utime + usage.ru_stime, time.perf_counter())


def memory() -> float:
    """Read the peak of resident memory, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def settled() -> float:
    """Read resident memory after a collection, MB, and forget the peak so far."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return memory()


def sound(seconds: float) -> Any:
    """Make a test sound: gliding tones and noise, float32 [S], whole frames of any model."""
    import numpy as np

    samples = round(seconds * RATE) // 2**14 * 2**14
    at = np.arange(samples, dtype=np.float64) / RATE
    wave = 0.3 * np.sin(2 * np.pi * 200 * at * (1 + 0.2 * np.sin(at)))
    return (wave + 0.05 * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)


def table(rows: list[Row]) -> str:
    """Lay the rows out, each of ours with its ratio to torch."""
    names = ["kind", "cores", "who", "encode CPU s", "decode CPU s", "wall s", "MB", "MB from cold", "ratio"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        if "word" in row:
            lines.append(f"| {row['kind']} | {row['word']} |")
            continue
        pair = [
            other
            for other in rows
            if (other["kind"], other.get("cores")) == (row["kind"], row["cores"]) and other["who"] == "torch"
        ]
        total = row["encode_cpu"] + row["decode_cpu"]
        ratio = (pair[0]["encode_cpu"] + pair[0]["decode_cpu"]) / total
        lines.append(
            f"| {row['kind']} | {row['cores']} | {row['who']} | {row['encode_cpu']:.2f} | "
            f"{row['decode_cpu']:.2f} | {row['wall']:.2f} | {row['extra_mb']:.0f} | "
            f"{row['extra_mb_cold']:.0f} | {ratio:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
