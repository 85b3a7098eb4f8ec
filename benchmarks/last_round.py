"""Where a server rule ends on prepared clients, as several benchmarks ask."""

from collections import deque
from typing import Any

from fedpl.method import Method
from fedpl.rounds.federation import Federation
from fedpl.rounds.loop import RoundResult, run_rounds
from fedpl.runs.prepared import Prepared
from fedpl.server import Aggregator


def last_round(
    prepared: Prepared, aggregator: Aggregator, rounds: int, evaluate_every: int = 0, **conditions: Any
) -> RoundResult:
    """The last of several rounds.

    Args:
        prepared: The clients.
        aggregator: The server rule.
        rounds: Number of rounds.
        evaluate_every: As in `Federation`; test data is scored in the last round in any case.
        conditions: Other fields of `Federation`.
    """
    method = Method("benchmark", aggregator=aggregator)
    federation = Federation(method, prepared.executor, evaluate_every=evaluate_every, **conditions)
    return deque(run_rounds(federation, rounds), maxlen=1).pop()
