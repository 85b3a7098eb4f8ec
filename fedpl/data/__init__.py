"""Where clients and their examples come from."""

from fedpl.data.columns import Columns
from fedpl.data.description import describe
from fedpl.data.records import ClientData, Dialogues, FederatedData, Message, Source, Split
from fedpl.data.splitting import Splitting
from fedpl.data.tables import HubText, TextFiles
from fedpl.data.tweets import AIRLINES, Tweets

__all__ = [
    "AIRLINES",
    "ClientData",
    "Columns",
    "Dialogues",
    "FederatedData",
    "HubText",
    "Message",
    "Source",
    "Split",
    "Splitting",
    "TextFiles",
    "Tweets",
    "describe",
]
