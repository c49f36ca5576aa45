"""The sLSTM straight from its recurrence, in float64 NumPy (arXiv 2405.04517, section 2.2)."""

import numpy as np


def slstm(i, f, z, o, recurrent, state=None, reset=None):
    """Gates [B,T,H,D], recurrent [4,H,D,D] (gate, head, from, to); state (y, c, n, m), each [B,H,D]."""
    i, f, z, o, recurrent = (np.asarray(a, np.float64) for a in (i, f, z, o, recurrent))
    batch, length, heads, width = z.shape
    state = np.zeros((4, batch, heads, width)) if state is None else state
    y, c, n, m = (np.array(a, np.float64) for a in state)
    out = np.zeros(z.shape)
    for t in range(length):
        if reset is not None:
            gone = np.asarray(reset)[:, t]
            y[gone], c[gone], n[gone], m[gone] = 0, 0, 0, 0
        it, ft, zt, ot = (
            gate[:, t] + np.stack([y[:, h] @ recurrent[g, h] for h in range(heads)], axis=1)
            for g, gate in enumerate((i, f, z, o))
        )
        log_f = m - np.logaddexp(0, -ft)
        m = np.where(n == 0, it, np.maximum(it, log_f))
        write, keep = np.minimum(np.exp(it - m), 1), np.minimum(np.exp(log_f - m), 1)
        c = keep * c + write * np.tanh(zt)
        n = keep * n + write
        y = c / n / (1 + np.exp(-ot))
        out[:, t] = y
    return out, (y, c, n, m)
