"""Which device trains, and in which arithmetic."""

import os
from dataclasses import dataclass

import torch

from fedpl.errors import UserError


def bound_primitives() -> None:
    """Let torch keep compiled CPU kernels for few shapes, unless the environment says how many.

    In bf16 it keeps one per shape, of about half a MiB, for up to 1,024 shapes; passes have ever new shapes,
    and making a kernel again costs a fraction of running it.
    """
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, "32")


bound_primitives()  # they are read when the first kernel is made


@dataclass(frozen=True)
class Hardware:
    """Where and how clients train.

    Attributes:
        device: The torch device.
        precision: Lightning's name of the arithmetic.
    """

    device: torch.device
    precision: str

    @property
    def accelerator(self) -> str:
        """Lightning's name of the device's kind."""
        return "gpu" if self.device.type == "cuda" else "cpu"

    @property
    def devices(self) -> list[int] | int:
        """Lightning's choice among devices of this kind: this one, which it would take to be the first."""
        return 1 if self.device.index is None else [self.device.index]

    def give_back(self) -> None:
        """Hand memory that torch keeps for later back to a GPU, for others there: the server's JAX."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def autocast(self) -> torch.autocast:
        """The arithmetic of `precision`, for code outside Lightning."""
        mixed = self.precision == "bf16-mixed"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed)


def choose_hardware(accelerator: str, precision: str) -> Hardware:
    """Resolve ``auto``: a GPU when there is one, bf16 where the card computes it natively.

    Raises:
        UserError: If a GPU is asked for and none is there.
    """
    gpu = torch.cuda.is_available()
    if accelerator == "gpu" and not gpu:
        raise UserError("accelerator: gpu was asked for, but torch sees none; use auto or cpu")
    use_gpu = gpu and accelerator != "cpu"
    if precision == "auto":
        native = use_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16-mixed" if native else "32-true"
    return Hardware(
        torch.device("cuda", torch.cuda.current_device()) if use_gpu else torch.device("cpu"), precision
    )
