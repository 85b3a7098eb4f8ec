"""Versions of what results depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "fedpl",
    "torch",
    "lightning",
    "transformers",
    "peft",
    "bitsandbytes",
    "jax",
    "jaxlib",
    "numpy",
    "scipy",
    "scikit-learn",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, those installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
