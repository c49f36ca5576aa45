"""The mLSTM straight from its recurrence, in float64 NumPy (arXiv 2405.04517, section 2.3)."""

import numpy as np


def mlstm(q, k, v, igate, fgate, state=None, reset=None):
    """q, k [B,H,T,K], v [B,H,T,V], gates [B,H,T]; state (C [B,H,K,V], n [B,H,K], m [B,H]); reset [B,T]."""
    q, k, v, igate, fgate = (np.asarray(a, np.float64) for a in (q, k, v, igate, fgate))
    batch, heads, length, key_width = q.shape
    if state is None:
        shape = (batch, heads)
        state = np.zeros((*shape, key_width, v.shape[-1])), np.zeros((*shape, key_width)), np.zeros(shape)
    C, n, m = (np.array(a, np.float64) for a in state)
    out = np.zeros(v.shape)
    for t in range(length):
        if reset is not None:
            gone = np.asarray(reset)[:, t]
            C[gone], n[gone], m[gone] = 0, 0, 0
        log_f = -np.logaddexp(0, -fgate[:, :, t])
        new_m = np.maximum(log_f + m, igate[:, :, t])
        f, i = np.exp(log_f + m - new_m), np.exp(igate[:, :, t] - new_m)
        m = new_m
        C = f[..., None, None] * C + i[..., None, None] * k[:, :, t, :, None] * v[:, :, t, None, :]
        n = f[..., None] * n + i[..., None] * k[:, :, t]
        query = q[:, :, t] / np.sqrt(key_width)
        mass = np.abs(np.sum(n * query, -1))
        out[:, :, t] = np.einsum("bhkv,bhk->bhv", C, query) / (np.maximum(mass, np.exp(-m)) + 1e-6)[..., None]
    return out, (C, n, m)
