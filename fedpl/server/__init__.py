"""The server's side: what is compared, similarity, weighting, combination. Never imports torch."""

from fedpl.server.aggregator import Aggregator
from fedpl.server.agreement import Agreement
from fedpl.server.clustering import Bipartition, Clusters, SameChoice
from fedpl.server.combine import Combine, FactorWise, ProductSpace, Residual, Stacking
from fedpl.server.groups import Groups
from fedpl.server.published import FedAmp, FedAwa, SimplexQp
from fedpl.server.receiving import BestOf, Own, Receive
from fedpl.server.robust import Krum, Trimmed
from fedpl.server.selection import Blend, FixedSelf, Relu, Softmax, Threshold, TopK, Wiener
from fedpl.server.similarity import (
    Bounded,
    CentredCosine,
    CorrectedCosine,
    Cosine,
    Distance,
    InnerProduct,
    Likeness,
    PrincipalAngles,
    Rbf,
    SignAgreement,
    Similarity,
)
from fedpl.server.subject import Subject
from fedpl.server.weighting import BySize, FedBip, Local, TrueGroups, Uniform, Weighting

__all__ = [
    "Aggregator",
    "Agreement",
    "BestOf",
    "Bipartition",
    "Blend",
    "Bounded",
    "BySize",
    "CentredCosine",
    "Clusters",
    "Combine",
    "CorrectedCosine",
    "Cosine",
    "Distance",
    "FactorWise",
    "FedAmp",
    "FedAwa",
    "FedBip",
    "FixedSelf",
    "Groups",
    "InnerProduct",
    "Krum",
    "Likeness",
    "Local",
    "Own",
    "PrincipalAngles",
    "ProductSpace",
    "Rbf",
    "Receive",
    "Relu",
    "Residual",
    "SameChoice",
    "SignAgreement",
    "Similarity",
    "SimplexQp",
    "Softmax",
    "Stacking",
    "Subject",
    "Threshold",
    "TopK",
    "Trimmed",
    "TrueGroups",
    "Uniform",
    "Weighting",
    "Wiener",
]
