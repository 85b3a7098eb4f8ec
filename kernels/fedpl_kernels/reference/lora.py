"""The LoRA Gram matrix by materialising every update: d_out x d_in numbers a client."""

import numpy as np


def lora_gram(a: np.ndarray, b: np.ndarray, scale: float | np.ndarray = 1.0) -> np.ndarray:
    """⟨s_i B_i A_i, s_j B_j A_j⟩ of a [n, r, d_in], b [n, d_out, r]."""
    scales = np.broadcast_to(np.asarray(scale, np.float64), (len(a),))
    dense = [s * (q.astype(np.float64) @ p.astype(np.float64)) for s, p, q in zip(scales, a, b, strict=True)]
    return np.array([[np.sum(left * right) for right in dense] for left in dense])
