"""Where clients and their examples come from."""

from fedpl.data.columns import Columns
from fedpl.data.conventions import AsWritten, Convention, LabelNoise, Permutation, Rotation, Swap
from fedpl.data.description import describe
from fedpl.data.images import ImageFolder
from fedpl.data.partition import ByColumn, Partition
from fedpl.data.records import (
    ClientData,
    Dialogues,
    FederatedData,
    Images,
    Message,
    Pairs,
    Rated,
    Source,
    Split,
)
from fedpl.data.shares import Dirichlet, Iid, Pathological
from fedpl.data.splitting import Splitting
from fedpl.data.tables import HubText, TextFiles
from fedpl.data.tweets import AIRLINES, Tweets

__all__ = [
    "AIRLINES",
    "AsWritten",
    "ByColumn",
    "ClientData",
    "Columns",
    "Convention",
    "Dialogues",
    "Dirichlet",
    "FederatedData",
    "HubText",
    "Iid",
    "ImageFolder",
    "Images",
    "LabelNoise",
    "Message",
    "Pairs",
    "Partition",
    "Pathological",
    "Permutation",
    "Rated",
    "Rotation",
    "Source",
    "Split",
    "Splitting",
    "Swap",
    "TextFiles",
    "Tweets",
    "describe",
]
