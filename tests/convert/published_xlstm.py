"""The published models of PyPI xlstm on CPU (parity extra), and the golden files made from tiny ones.

Usage: python -m tests.convert.published_xlstm     writes tests/golden/xlstm_*.npz
"""

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
PREFILL, STEPS = 12, 4  # tokens of a golden file


def large(weight_mode, blocks, width, heads, vocabulary):
    """xLSTMLarge in inference mode, all kernels in plain torch and float32."""
    from xlstm.xlstm_large.model import xLSTMLarge, xLSTMLargeConfig

    config = xLSTMLargeConfig(
        embedding_dim=width,
        num_heads=heads,
        num_blocks=blocks,
        vocab_size=vocabulary,
        weight_mode=weight_mode,
        mode="inference",
        return_last_states=True,
        chunkwise_kernel="chunkwise--native_autograd",
        sequence_kernel="native_sequence__native",
        step_kernel="native",
        autocast_kernel_dtype="float32",
    )
    return made(xLSTMLarge, config)


def original(blocks, slstm_at, width, heads, vocabulary, length):
    """xLSTMLMModel of 2024 with mLSTM blocks, and sLSTM blocks at some positions."""
    import xlstm

    config = xlstm.xLSTMLMModelConfig(
        vocab_size=vocabulary,
        num_blocks=blocks,
        embedding_dim=width,
        context_length=length,
        slstm_at=list(slstm_at),
        mlstm_block=xlstm.mLSTMBlockConfig(mlstm=xlstm.mLSTMLayerConfig(num_heads=heads)),
        slstm_block=xlstm.sLSTMBlockConfig(
            slstm=xlstm.sLSTMLayerConfig(backend="vanilla", num_heads=heads),
            feedforward=xlstm.FeedForwardConfig(proj_factor=1.3, act_fn="gelu"),
        ),
    )
    return made(xlstm.xLSTMLMModel, config)


def made(build, config):
    """Build from a fixed seed, then move what starts constant: recurrent and gate kernels, norms, skips.

    At their start (zeros, ones) these would test nothing.
    """
    import torch

    torch.manual_seed(0)
    model = build(config)
    with torch.no_grad():
        for weight in model.state_dict().values():
            if weight.std() == 0:
                fan_in = weight.shape[-1] if weight.ndim > 1 else 25
                weight.add_(torch.randn(weight.shape) / fan_in**0.5)
            weight.copy_(weight.half().float())  # exact in half precision, so that golden files are small
    return model.eval()


def prefill_and_steps(model, tokens, prefill):
    """Logits of a prefill, then of single steps; xLSTMLarge continues its state."""
    import torch

    tokens = torch.from_numpy(tokens)
    with torch.no_grad():
        if not hasattr(model, "step"):
            first, state = model(tokens[:, :prefill])
            rest = []
            for n in range(prefill, tokens.shape[1]):
                logits, state = model(tokens[:, n : n + 1], state)
                rest.append(logits)
            return torch.cat([first, *rest], 1).numpy()
        # xLSTMLMModel gives no state after a prefill: its state comes by steps.
        first, state, rest = model(tokens[:, :prefill]), None, []
        for n in range(tokens.shape[1]):
            logits, state = model.step(tokens[:, n : n + 1], state)
            rest.append(logits)
        return torch.cat([first, *rest[prefill:]], 1).numpy()


def tokens_of(batch, length, vocabulary, seed=0):
    return np.random.default_rng(seed).integers(0, vocabulary, (batch, length))


def write_golden():
    models = {
        "xlstm_large": large("single", blocks=2, width=32, heads=4, vocabulary=13),
        "xlstm_2024": original(3, [1], width=32, heads=4, vocabulary=13, length=PREFILL + STEPS),
    }
    for name, model in models.items():
        tokens = tokens_of(2, PREFILL + STEPS, 13)
        arrays = {f"weights/{key}": value.half().numpy() for key, value in model.state_dict().items()}
        logits = prefill_and_steps(model, tokens, PREFILL)
        path = GOLDEN / f"{name}.npz"
        np.savez_compressed(path, tokens=tokens.astype(np.int32), logits=logits, **arrays)
        print(path.name, path.stat().st_size, "bytes; largest logit", abs(logits).max())


if __name__ == "__main__":
    write_golden()
