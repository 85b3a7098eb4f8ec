"""One round of the server, with the choices of an `Aggregator`: compare, weigh, combine."""

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from fedpl.records.layout import AdapterLayout
from fedpl.server.deciding import compare, decide
from fedpl.server.looking import Plan, Seen, look
from fedpl.server.moving import Moved, closed, move
from fedpl.server.ondisk import OnDisk
from fedpl.server.panels import step_in_panels
from fedpl.server.state import Aggregation, ServerState, TaskVectors

if TYPE_CHECKING:  # the rule whose step it is: its settings, read as a value
    from fedpl.server.aggregator import Aggregator

_log = logging.getLogger(__name__)
_NOT_COMPILED: set["Aggregator"] = set()  # rules that have been found to look at numbers
_LARGE = 2**26  # bytes of task vectors


def step(
    rule: "Aggregator", state: ServerState, vectors: TaskVectors, layout: AdapterLayout
) -> tuple[ServerState, Aggregation]:
    """See `Aggregator.update`."""
    if isinstance(state.personal, np.ndarray | OnDisk):
        return step_in_panels(rule, state, vectors, layout)
    plan, seen = look(rule, vectors, layout)
    number: Any = np.int32(state.round)  # an argument, not a constant of the program
    began, given = state._replace(round=number), vectors._replace(true_groups=None)
    # A whole step holds the vectors that it made to compare until its end: one matrix more.
    large = rule.subject.vectors == "cumulative" and vectors.matrix.nbytes > _LARGE
    if rule.weighting.on_host or rule in _NOT_COMPILED or large:
        new, aggregation = _in_parts(plan, began, given, seen)
    else:
        try:
            new, aggregation = _compiled(began.personal, began[2:], number, given, seen, plan)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
            # A choice of the user's own that looks at numbers without saying so.
            _log.info("the server's step is not compiled: %s", str(error).splitlines()[0])
            _NOT_COMPILED.add(rule)
            new, aggregation = _in_parts(plan, began, given, seen)
    return new._replace(round=state.round + 1), aggregation


@partial(jax.jit, static_argnames="plan", donate_argnums=0)
def _compiled(
    personal: Float[Array, "rows params"],
    others: tuple,
    round: Int[Array, ""],
    vectors: TaskVectors,
    seen: Seen,
    plan: Plan,
) -> tuple[ServerState, Aggregation]:
    state = ServerState(round, personal, *others)  # type: ignore[arg-type]
    vectors = _cut(plan, vectors, seen)
    decided = decide(plan, state, vectors, seen, compare(plan, state, vectors, seen))
    return closed(state, seen, decided, move(plan, state, vectors, seen, decided.applied))


def _in_parts(
    plan: Plan, state: ServerState, vectors: TaskVectors, seen: Seen
) -> tuple[ServerState, Aggregation]:
    """The same where weights are found on the host; new aggregates take the old ones' place all the same."""
    vectors = _cut(plan, vectors, seen)
    decided = decide(plan, state, vectors, seen, compare(plan, state, vectors, seen))
    # And no more: what a weighting remembers has other shapes in the first rounds, and would compile anew.
    memory = {choice: state.of(choice) for choice in ("server", "receive")}
    others = (state.reference, memory)
    return closed(state, seen, decided, _moved(state.personal, others, vectors, seen, decided.applied, plan))


@partial(jax.jit, static_argnames="plan", donate_argnums=0)
def _moved(
    personal: Float[Array, "rows params"],
    others: tuple,
    vectors: TaskVectors,
    seen: Seen,
    weights: Float[Array, "groups clients clients"],
    plan: Plan,
) -> Moved:
    return move(plan, ServerState(0, personal, *others), vectors, seen, weights)


def _cut(plan: Plan, vectors: TaskVectors, seen: Seen) -> TaskVectors:
    return vectors._replace(matrix=vectors.matrix * seen.kept[:, None]) if plan.cut else vectors
