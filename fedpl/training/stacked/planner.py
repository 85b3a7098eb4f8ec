"""Which clients go through the model together, and how much of them at once."""

from collections.abc import Sequence
from itertools import pairwise

import torch

from fedpl.training.backend import Effort
from fedpl.training.stacked.packing import Limits

# Larger cohorts only add waiting until the first client reports; measured by benchmarks/cohort.py.
_MOST_CLIENTS = {"cpu": 64, "cuda": 256}
# A pass that fills the device; on a CPU, one whose activations stay near the caches.
_PASS_TOKENS = {"cpu": 2048, "cuda": 65_536}
_PASS_OVERHEAD = {"cpu": 32, "cuda": 4096}
_SHARE_OF_FREE_MEMORY = 0.5
# Adapter, gradient, two moments and a step's temporaries, float32.
_BYTES_PER_PARAMETER = 6 * 4


def group(work: Sequence[Effort], size: int) -> list[list[int]]:
    """Cohorts of at most `size` clients with similar numbers of steps and tokens.

    Args:
        work: What each client asks for.
        size: Most clients of a cohort.

    Returns:
        Places of the clients of each cohort, most steps first; cohort sizes differ by at most one.
    """
    order = sorted(range(len(work)), key=lambda i: (-work[i].steps, -work[i].tokens, i))
    number = -(-len(order) // size)
    cuts = [len(order) * i // number for i in range(number + 1)] if number else []
    return [order[begin:end] for begin, end in pairwise(cuts)]


def cohort_size(setting: int | str, device: torch.device, params: int, free: int, copies: int = 0) -> int:
    """Most clients of a cohort: as set, else as many as pay and as memory holds.

    Args:
        setting: client.cohort_size.
        device: Where to train.
        params: Trainable parameters of a client.
        free: Free memory in bytes.
        copies: Matrices as large that the objective holds beside those of plain training.
    """
    if isinstance(setting, int):
        return setting
    fitting = int(free * _SHARE_OF_FREE_MEMORY / 2) // (params * (_BYTES_PER_PARAMETER + 4 * copies))
    return max(1, min(fitting, _MOST_CLIENTS[device.type]))


def pass_limits(setting: int | str, device: torch.device, bytes_per_token: int, free: int) -> Limits:
    """Most tokens of a pass: as set, else as many as pay and as memory holds.

    Args:
        setting: client.tokens_per_pass.
        device: Where to train.
        bytes_per_token: Activations kept for the backward pass.
        free: Free memory in bytes.
    """
    fitting = int(free * _SHARE_OF_FREE_MEMORY / 2) // max(bytes_per_token, 1)
    auto = max(1, min(fitting, _PASS_TOKENS[device.type]))
    tokens = setting if isinstance(setting, int) else auto
    # Few different lengths suit a GPU's matrix units and its memory allocator.
    return Limits(tokens, _PASS_OVERHEAD[device.type], multiple=8 if device.type == "cuda" else 1)
