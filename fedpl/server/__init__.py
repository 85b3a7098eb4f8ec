"""The server's side: similarity, weighting, aggregation. Never imports torch."""

from fedpl.server.aggregator import Aggregator
from fedpl.server.similarity import Cosine, Similarity
from fedpl.server.weighting import BySize, FedBip, Local, Uniform, Weighting

__all__ = ["Aggregator", "BySize", "Cosine", "FedBip", "Local", "Similarity", "Uniform", "Weighting"]
