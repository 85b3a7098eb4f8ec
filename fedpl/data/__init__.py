"""Where clients and their examples come from."""

from fedpl.data.description import describe
from fedpl.data.records import ClientData, FederatedData, Source, Split
from fedpl.data.splitting import Splitting
from fedpl.data.tables import Columns, HubText, TextFiles
from fedpl.data.tweets import AIRLINES, Tweets

__all__ = [
    "AIRLINES",
    "ClientData",
    "Columns",
    "FederatedData",
    "HubText",
    "Source",
    "Split",
    "Splitting",
    "TextFiles",
    "Tweets",
    "describe",
]
