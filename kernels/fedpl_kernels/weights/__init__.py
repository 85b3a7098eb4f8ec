"""From similarities to mixing weights: pure functions on [..., n, n], rows that sum to one.

Conventions shared by all of them:
- row i holds the weights client i gives to the clients; leading axes (blocks) are batched;
- `mask` [n] tells who is present; a similarity with a zero on its diagonal marks a client without a
  direction (see `fedpl_kernels.cosine`), treated as absent;
- an absent client gets the identity row (it keeps its own) and the column zero in every other row;
- nothing here divides by a small number without a declared fall-back.
"""

from ._diagnostics import WeightDiagnostics, diagnostics
from ._fedbip import fedbip
from ._prior import blend_prior, by_size, clusters, fixed_self, identity, uniform
from ._published import fedamp, fedawa_logits
from ._robust import krum, trim
from ._selection import relu, softmax, threshold, top_k
from ._similarity import centre, corrected, median_distance, rbf, subspace_overlap
from ._simplex import project_simplex, simplex_qp
from ._wiener import fill_diagonal, wiener

__all__ = [
    "WeightDiagnostics",
    "blend_prior",
    "by_size",
    "centre",
    "clusters",
    "corrected",
    "diagnostics",
    "fedamp",
    "fedawa_logits",
    "fedbip",
    "fill_diagonal",
    "fixed_self",
    "identity",
    "krum",
    "median_distance",
    "project_simplex",
    "rbf",
    "relu",
    "simplex_qp",
    "softmax",
    "subspace_overlap",
    "threshold",
    "top_k",
    "trim",
    "uniform",
    "wiener",
]
