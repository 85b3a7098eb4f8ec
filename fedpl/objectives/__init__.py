"""The client's side of a method: what is minimised in a round, from where. Imports no torch up front."""

from fedpl.objectives.objective import Objective
from fedpl.objectives.personal import APFL, Ditto, FedALA, FedDPA
from fedpl.objectives.single import FedProx, FedRep, PFedGraph, Plain

__all__ = ["APFL", "Ditto", "FedALA", "FedDPA", "FedProx", "FedRep", "Objective", "PFedGraph", "Plain"]
