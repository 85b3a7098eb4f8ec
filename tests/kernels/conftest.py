"""Few rows in host memory are multiplied without a program of XLA's: what holds, holds for both ways."""

from collections.abc import Iterator

import pytest
from fedpl_kernels import _host

BOTH = ("tests.kernels.test_gram", "tests.kernels.test_mix")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__ in BOTH:
        metafunc.parametrize("way", ["host", "compiled"], indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if getattr(request, "param", "host") == "compiled":
            patch.setattr(_host, "_ROWS", 0)
        yield
