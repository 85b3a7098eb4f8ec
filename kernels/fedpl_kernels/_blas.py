"""Whose BLAS multiplies in host memory: NumPy's, or torch's on Intel's CPUs where a program asks for it.

torch brings Intel's library. Of 12 rows of 75,000 columns, one and two threads: on a Xeon with AVX-512 it
takes a third to a half of NumPy's time to mix and two thirds to four fifths for products; on EPYCs NumPy's
takes a third to two thirds of torch's to mix, and as long for products. It rounds otherwise, so nothing but
the program decides: runs of fedpl, whose servers may live where there is no torch, keep NumPy's.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

# Rows from which half the multiplications win, as NumPy's BLAS does X Xᵀ: 64 rows of 500,000 columns take 0.8
# of torch's time with AVX2 and 1.4 with AVX-512, 100 rows 0.5 and 0.7.
_HALF = {False: 48, True: 96}


_asked: list[Any] = []  # torch, where a program has asked for it


def use_blas_of(library: Any) -> None:
    """From now on in this process, `gram` and `mix` multiply few rows on an Intel CPU by torch's BLAS.

    With AVX-512 up to 2,048 rows; on other CPUs, where NumPy's is the faster one, nothing changes. Last bits
    differ.

    Args:
        library: torch, so that this package does not import it; None: NumPy's again.
    """
    _asked[:] = [] if library is None else [library]


def torch() -> Any:
    """The module, where a program has asked for its BLAS and that is the faster one; else None."""
    return _asked[0] if _asked and _intel() and _asked[0].backends.mkl.is_available() else None


def wide() -> bool:
    """Whether torch's BLAS is the faster one and has vectors of 512 bits."""
    library = torch()
    return library is not None and library.backends.cpu.get_cpu_capability() == "AVX512"


@cache
def _intel() -> bool:
    known = Path("/proc/cpuinfo")
    return known.is_file() and "GenuineIntel" in known.read_text()


def halves(rows: int) -> bool:
    """Whether X Xᵀ of so many rows is NumPy's, with half the multiplications."""
    return torch() is None or rows >= _HALF[wide()]


def add_square(total: Float[np.ndarray, "n n"], x: Float[np.ndarray, "n c"]) -> None:
    """Adds X Xᵀ, whose two halves may be rounded differently."""
    if halves(len(x)):
        total += x @ x.T
        return
    library = torch()
    rows = _lent(library, x)
    _lent(library, total).addmm_(rows, rows.T)


def add_product(
    library: Any,
    target: Float[np.ndarray, "m c"],
    p: Float[np.ndarray, "m n"],
    x: Float[np.ndarray, "n c"],
    whole: bool,
) -> None:
    """Adds P X to the target by torch, or writes it there.

    Args:
        library: torch.
        target: Where to; not the memory of `x`.
        p: Copied to aligned memory: how weights happen to lie must not decide how they are rounded.
        x: Finite.
        whole: Whether P X takes the place of what was there.
    """
    own = _lent(library, p).clone()
    _lent(library, target).addmm_(own, _lent(library, x), beta=0.0 if whole else 1.0)


def finite(library: Any, x: Float[np.ndarray, "n c"]) -> bool:
    """Whether all numbers are, in one pass and without an array beside them; False also if they are huge."""
    total = _lent(library, x).sum().item()
    return bool(total - total == 0.0)


def takes(x: np.ndarray) -> bool:
    """Whether torch can look at this memory as float32, as it lies."""
    whole = all(step >= 0 and step % x.itemsize == 0 for step in x.strides)
    return x.dtype == np.float32 and x.flags.aligned and whole


def _lent(library: Any, x: Float[np.ndarray, "*shape"]) -> Any:
    """torch's view of the same memory; of a copy, where it cannot look at that (rows that run backwards)."""
    if not takes(x):
        x = np.array(x, np.float32, order="C")
    # It would warn where NumPy's own view may only be read.
    return library.from_numpy(x if x.flags.writeable else np.asarray(Memory(x)))


class Memory:
    """What NumPy makes an array of that may be written to; whoever has it keeps what owns the memory.

    Args:
        view: The array, as NumPy sees it.
        begin: Where its memory begins, if not where NumPy says.
    """

    def __init__(self, view: np.ndarray, begin: int | None = None) -> None:
        self._owner = view
        known = view.__array_interface__
        self.__array_interface__ = {**known, "data": (begin or known["data"][0], False)}
