"""First choice of the server: how alike two task vectors are. Settings only; the arithmetic is in kernels."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from jax import Array

# Imports inside methods keep `--help` and the checks of a configuration free of JAX's start-up time.


class Similarity(ABC):
    """A pure function from task vectors [n, d] and column ranges to similarities [blocks, n, n]."""

    @abstractmethod
    def __call__(
        self, matrix: "Array", boundaries: tuple[tuple[int, int], ...], mask: "Array"
    ) -> "Array": ...


@dataclass(frozen=True)
class Cosine(Similarity):
    """Cosine of the angle between task vectors, block by block (FedBip, server level).

    Attributes:
        precision: Arithmetic of the Gram matrix: highest (float32), tf32 or bf16 (float32 accumulation).
    """

    precision: Literal["highest", "tf32", "bf16"] = "highest"

    def __call__(self, matrix: "Array", boundaries: tuple[tuple[int, int], ...], mask: "Array") -> "Array":
        from fedpl_kernels import cosine, gram_blocks

        return cosine(gram_blocks(matrix, boundaries, mask, precision=self.precision), mask)
