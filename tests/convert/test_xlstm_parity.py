"""Against PyPI xlstm 2.0.6 in torch, 12 layers: logits of a prefill, and of steps from its state."""

import jax
import numpy as np
import pytest

from mfm_jax.convert.xlstm import from_published, to_published
from mfm_jax.convert.xlstm_files import export_file, import_file
from mfm_jax.models.xlstm_lm import XLSTMLM
from tests.convert import published_xlstm as published

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
pytest.importorskip("xlstm")
pytest.importorskip("mlstm_kernels")

PREFILL, STEPS, VOCABULARY = 128, 8, 256


def compare(model, capsys, name):
    """Convert, run both, and hold them to 1e-4; every tensor comes back as it was."""
    torch.set_num_threads(1)
    weights = model.state_dict()
    params, config = from_published(weights)
    tokens = published.tokens_of(2, PREFILL + STEPS, VOCABULARY)
    want = published.prefill_and_steps(model, tokens, PREFILL)
    read = jax.jit(XLSTMLM(config).apply)
    logits, state = read({"params": params}, tokens[:, :PREFILL])
    worst = [np.abs(logits - want[:, :PREFILL]).max()]
    for n in range(PREFILL, PREFILL + STEPS):
        logits, state = read({"params": params}, tokens[:, n : n + 1], state)
        worst.append(np.abs(logits - want[:, n : n + 1]).max())
    with capsys.disabled():
        largest = np.abs(want).max()
        print(f"\n{name}: prefill {worst[0]:.1e}, steps {max(worst[1:]):.1e}, largest logit {largest:.1f}")
    assert max(worst) <= 1e-4
    layout = "fused" if any("qkv_opreact" in key for key in weights) else None
    back = to_published(params, config, layout)
    assert back.keys() == weights.keys()
    for key, array in back.items():
        np.testing.assert_array_equal(array, weights[key].numpy(), err_msg=key)


@pytest.mark.parametrize("weight_mode", ["single", "fused"])
def test_large(weight_mode, capsys):
    model = published.large(weight_mode, blocks=12, width=512, heads=8, vocabulary=VOCABULARY)
    compare(model, capsys, f"xLSTMLarge, {weight_mode}, 12 layers")


def test_what_we_write_loads_there(tmp_path):
    from xlstm.xlstm_large.from_pretrained import load_from_pretrained

    model = published.large("single", blocks=1, width=64, heads=4, vocabulary=8)
    safetensors_torch.save_file(model.state_dict(), tmp_path / "their.safetensors")
    ours = import_file(tmp_path / "their.safetensors", tmp_path)
    export_file(ours, tmp_path / "back", "single")
    loaded = load_from_pretrained(
        tmp_path / "back",
        chunkwise_kernel_name="chunkwise--native_autograd",
        sequence_kernel_name="native_sequence__native",
        step_kernel_name="native",
    )
    assert loaded.config.num_heads == 4
    for name, weight in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], weight)


def test_original_with_slstm(capsys):
    model = published.original(12, [1, 4, 7, 10], 256, 4, VOCABULARY, PREFILL + STEPS)
    compare(model, capsys, "xLSTMLMModel, 12 layers, sLSTM at 1, 4, 7, 10")


def test_original_of_slstm_only(capsys):
    model = published.original(12, range(12), 128, 4, VOCABULARY, PREFILL + STEPS)
    compare(model, capsys, "xLSTMLMModel, 12 sLSTM layers")


def test_cuda_layout_is_what_the_cuda_cell_keeps():
    from xlstm.blocks.slstm.cell import sLSTMCell, sLSTMCellConfig

    model = published.original(2, [1], 64, 2, 8, 4)
    vanilla = model.xlstm_block_stack.blocks[1].xlstm.slstm_cell
    cell = sLSTMCell(sLSTMCellConfig(hidden_size=64, num_heads=2, backend="cuda"), skip_backend_init=True)
    cell.recurrent_kernel[:] = vanilla.recurrent_kernel[:]
    cell.bias[:] = vanilla.bias[:]
    params, config = from_published(model.state_dict())
    weights = to_published(params, config, "cuda")
    prefix = "xlstm_block_stack.blocks.1.xlstm.slstm_cell"
    for name in ("_recurrent_kernel_", "_bias_"):
        want = getattr(cell, name).detach().numpy()
        np.testing.assert_array_equal(weights[f"{prefix}.{name}"], want)


def test_bfloat16_state_dict_keeps_its_dtype():
    weights = {k: v.bfloat16() for k, v in published.original(2, [1], 64, 2, 8, 4).state_dict().items()}
    params, _ = from_published(weights)
    assert {a.dtype.name for a in jax.tree.leaves(params)} == {"bfloat16"}
