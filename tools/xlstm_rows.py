"""One measurement of tools/benchmark_xlstm.py, in a process of its own on one core; prints one JSON line.

Times are CPU seconds of the process (the least of several repeats), so that other work on the machine counts
as little as it can.
"""

import importlib
import json
import os
import sys
import time
import types
from collections.abc import Callable
from typing import Any

PEERS = {"torch", "xlstm", "mlstm_kernels"}  # what the extra `parity` brings
HEADS, VALUE = 8, 64  # of one cell
DECODER = {"layers": 12, "width": 512, "heads": 8, "vocabulary": 4096}


def stay_on(core: int) -> None:
    """Keep this process on one core and one thread; call before anything heavy is imported."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    os.environ["JAX_PLATFORMS"] = "cpu"


def least(run: Callable[[], Any], repeats: int) -> float:
    """CPU seconds of the quickest of `repeats` calls, after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def cell_inputs(batch: int, length: int, key: int) -> tuple[Any, ...]:
    """q, k, v, input gate, forget gate, weights of the outputs in the loss."""
    import numpy as np

    rng = np.random.default_rng(0)
    wide = [rng.normal(size=(batch, HEADS, length, width)) for width in (key, key, VALUE, VALUE)]
    gates = rng.normal(-1, 2, (batch, HEADS, length)), rng.normal(3, 2, (batch, HEADS, length))
    return tuple(a.astype(np.float32) for a in (*wide[:3], *gates, wide[3]))


def native_chunkwise() -> Callable[..., Any]:
    """Give mlstm_kernels' chunkwise form in JAX, past its packages, which need Triton."""
    import mlstm_kernels

    for name in ("mlstm_kernels.jax", "mlstm_kernels.jax.chunkwise"):
        shell = types.ModuleType(name)
        shell.__path__ = [os.path.join(mlstm_kernels.__path__[0], *name.split(".")[1:])]
        sys.modules[name] = shell
    native = importlib.import_module("mlstm_kernels.jax.chunkwise.native.fwbw")
    form: Callable[..., Any] = native.mlstm_chunkwise__native_autograd
    return form


def cell(
    form: str, backward: bool, batch: int, length: int, key: int, chunk: int | None, repeats: int
) -> dict[str, Any]:
    """Time one mLSTM cell: `ours`, `scan` (ours, step by step), `jax` or `torch` (mlstm_kernels)."""
    inputs = cell_inputs(batch, length, key)
    tokens = batch * length
    if form == "torch":
        return {"us": 1e6 * torch_cell(inputs, backward, chunk or 64, repeats) / tokens}
    import jax
    import jax.numpy as jnp

    from mfm_jax.layers import mlstm

    native = native_chunkwise() if form == "jax" else None

    def outputs(*tensors: Any) -> Any:
        if native is not None:
            return native(*tensors, chunk_size=chunk or 64)
        return (mlstm.scan(*tensors) if form == "scan" else mlstm.chunkwise(*tensors, chunk=chunk))[0]

    def both_ways(weights: Any, *tensors: Any) -> Any:
        return jax.value_and_grad(lambda *a: jnp.sum(outputs(*a) * weights), range(5))(*tensors)

    *tensors, weights = (jnp.asarray(a) for a in inputs)
    arguments = (weights, *tensors) if backward else tensors
    start = time.process_time()
    compiled = jax.jit(both_ways if backward else outputs).lower(*arguments).compile()
    compile_seconds = time.process_time() - start
    seconds = least(lambda: jax.block_until_ready(compiled(*arguments)), repeats)
    memory = compiled.memory_analysis().temp_size_in_bytes
    return {"us": 1e6 * seconds / tokens, "compile": compile_seconds, "temp": memory}


def torch_cell(inputs: tuple[Any, ...], backward: bool, chunk: int, repeats: int) -> float:
    """Seconds of mlstm_kernels' `native_custbw`."""
    import torch
    from mlstm_kernels.torch.chunkwise.native.fwbw import mlstm_chunkwise__native_custbw as form

    torch.set_num_threads(1)
    *tensors, weights = (torch.tensor(a) for a in inputs)
    for tensor in tensors:
        tensor.requires_grad_(backward)

    def run() -> None:
        with torch.set_grad_enabled(backward):
            h = form(*tensors, chunk_size=chunk, autocast_kernel_dtype=torch.float32)
            if backward:
                torch.autograd.grad((h * weights).sum(), tensors)

    return least(run, repeats)


def decode(form: str, batch: int, steps: int, repeats: int) -> dict[str, Any]:
    """Tokens a CPU second of a language model that feeds its choice back: `ours` or `torch` (PyPI xlstm)."""
    seconds = (torch_decode if form == "torch" else our_decode)(batch, steps, repeats)
    return {"tokens": batch * steps / seconds}


def torch_decode(batch: int, steps: int, repeats: int) -> float:
    """Seconds of `steps` steps of xLSTMLarge."""
    import torch
    from xlstm.xlstm_large.model import xLSTMLarge, xLSTMLargeConfig

    torch.set_num_threads(1)
    c = DECODER
    model = xLSTMLarge(
        xLSTMLargeConfig(
            embedding_dim=c["width"],
            num_heads=c["heads"],
            num_blocks=c["layers"],
            vocab_size=c["vocabulary"],
            mode="inference",
            return_last_states=True,
            chunkwise_kernel="chunkwise--native_autograd",
            sequence_kernel="native_sequence__native",
            step_kernel="native",
            autocast_kernel_dtype="float32",
        )
    ).eval()

    @torch.no_grad()
    def run() -> None:
        token, state = torch.zeros(batch, 1, dtype=torch.long), None
        for _ in range(steps):
            logits, state = model(token, state)
            token = logits[:, -1:].argmax(-1)

    return least(run, repeats)


def our_decode(batch: int, steps: int, repeats: int) -> float:
    """Seconds of `steps` steps of the same model, one jitted scan."""
    import jax

    from mfm_jax.models.xlstm_lm import XLSTMLM, initial_state

    config, params = our_model()
    model = XLSTMLM(config)

    @jax.jit
    def write(params: Any, token: Any, state: Any) -> Any:
        def step(carried: Any, _: None) -> Any:
            token, state = carried
            logits, state = model.apply({"params": params}, token, state)
            return (logits.argmax(-1), state), token

        return jax.lax.scan(step, (token, state), None, length=steps)

    arguments = params, jax.numpy.zeros((batch, 1), int), initial_state(config, batch)
    return least(lambda: jax.block_until_ready(write(*arguments)), repeats)


def position(form: str, repeats: int) -> dict[str, Any]:
    """Time a step at several positions: `ours` or `transformer`."""
    from xlstm_positions import cached_steps, recurrent_steps

    return (recurrent_steps if form == "ours" else cached_steps)(repeats)


def our_model() -> tuple[Any, Any]:
    """Config and split random parameters of the decoder."""
    import jax

    from mfm_jax.layers.xlstm import XLSTMConfig, split_layers
    from mfm_jax.models.xlstm_lm import XLSTMLM, XLSTMLMConfig

    c = DECODER
    stack = XLSTMConfig(layers=c["layers"], width=c["width"], heads=c["heads"])
    config = XLSTMLMConfig(vocabulary=c["vocabulary"], stack=stack)
    params = jax.jit(XLSTMLM(config).init)(jax.random.key(0), jax.numpy.zeros((1, 1), int))["params"]
    return config, split_layers(params)


def main() -> None:
    """Run the measurement that the command line describes as JSON: {"kind": ..., "core": ..., arguments}."""
    row = json.loads(sys.argv[1])
    stay_on(row.pop("core"))
    kind = row.pop("kind")
    try:
        found = {"cell": cell, "decode": decode, "position": position}[kind](**row)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in PEERS:
            raise
        found = {"missing": str(error)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
