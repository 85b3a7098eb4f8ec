"""Few rows in host memory are multiplied without a program of XLA's, by NumPy or by torch: what holds, holds
for all ways, whatever this machine would choose."""

from collections.abc import Iterator

import pytest
import torch
from fedpl_kernels import _blas, _host

WAYS = {
    "tests.kernels.test_gram": ("numpy", "torch", "compiled"),
    "tests.kernels.test_mix": ("numpy", "torch", "compiled"),
    "tests.kernels.test_host": ("numpy", "torch"),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if ways := WAYS.get(metafunc.module.__name__):
        metafunc.parametrize("way", ways, indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    own = getattr(request, "param", None)
    with pytest.MonkeyPatch.context() as patch:
        if own == "compiled":
            patch.setattr(_host, "serves", lambda *_, **__: False)
        elif own is not None:
            patch.setattr(_blas, "torch", lambda: torch if own == "torch" else None)
        yield
