"""How the server's choices fit each other, and what each of them remembers."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Bool, Float, Int

from fedpl.errors import UserError
from fedpl.server import (
    Aggregator,
    BestOf,
    Blend,
    Clusters,
    Cosine,
    Distance,
    FactorWise,
    FedAmp,
    FedAwa,
    FedBip,
    FixedSelf,
    InnerProduct,
    Krum,
    Likeness,
    Rbf,
    SameChoice,
    Similarity,
    SimplexQp,
    Softmax,
    Subject,
    Trimmed,
    Uniform,
    Weighting,
)
from fedpl.server.state import state_tensors
from tests import bounds
from tests.server.conftest import LORA, reference, task_vectors, vectors


@pytest.mark.parametrize(
    ("weighting", "takes"),
    [
        (FedAmp(), {"Distance"}),
        (Krum(), {"Distance"}),
        (FedBip(), {"Cosine", "InnerProduct", "Rbf"}),
        (SimplexQp(), {"Cosine", "InnerProduct", "Rbf"}),
        (Trimmed(FedBip()), {"Cosine", "InnerProduct", "Rbf"}),
        (FixedSelf(FedAmp()), {"Distance"}),
        (Blend(FedBip()), {"Cosine", "InnerProduct", "Rbf"}),
        (Clusters(), {"Cosine", "Rbf"}),
        (Softmax(), {"Cosine", "InnerProduct", "Rbf", "Distance"}),
        (Uniform(), {"Cosine", "InnerProduct", "Rbf", "Distance"}),
        (FedAwa(), {"Cosine", "InnerProduct", "Rbf", "Distance"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_weighting_says_which_similarity_it_can_take(weighting: Weighting, takes: set[str]) -> None:
    kinds = {type(one).__name__: one for one in (Cosine(), InnerProduct(), Rbf(), Distance())}
    found = {
        name for name, one in kinds.items() if not Aggregator(similarity=one, weighting=weighting).problems()
    }
    assert found == takes


def test_a_similarity_that_does_not_fit_is_refused_with_those_that_do() -> None:
    (line,) = Aggregator(weighting=FedAmp()).problems()
    assert line == "aggregator.similarity: FedAmp cannot take Cosine; set it to fedpl.server.Distance"
    (line,) = Aggregator(similarity=Distance()).problems()
    assert line.startswith(
        "aggregator.similarity: FedBip cannot take Distance; set it to fedpl.server.Cosine or "
    )


@dataclass(frozen=True)
class Measured(Similarity):
    """A user's own; nothing is said of its values."""

    def __call__(self, products: Any, mask: Any) -> Any:
        return products


@dataclass(frozen=True)
class MeasuredLikeness(Likeness):
    """A user's own, of a kind that most weightings can take."""

    def __call__(self, products: Any, mask: Any) -> Any:
        return products


def test_a_users_own_similarity_is_taken_by_its_kind() -> None:
    assert not Aggregator(similarity=Measured(), weighting=Softmax()).problems()
    assert not Aggregator(similarity=MeasuredLikeness()).problems()
    (line,) = Aggregator(similarity=Measured()).problems()
    assert line.endswith("; or derive Measured from fedpl.server.Likeness if its values are such")
    (other,) = Aggregator(similarity=Distance()).problems()
    assert "Measured" not in other  # only what ships is proposed


@pytest.mark.parametrize("wrap", [Blend, FixedSelf, Trimmed])
def test_who_chose_alike_may_be_wrapped_and_needs_several_models_then_too(wrap: Any) -> None:
    (line,) = Aggregator(weighting=wrap(SameChoice())).problems()
    assert line.startswith(f"aggregator.receive: Own does not go with {wrap.__name__}: ")
    rule = Aggregator(weighting=wrap(SameChoice()), receive=BestOf(), combine=FactorWise("models"))
    assert not rule.problems()
    state = rule.settle(rule.init(jnp.asarray(reference()), 6), np.asarray([0, 1] * 3))
    _, found = rule.update(state, vectors(task_vectors(0)), LORA)
    rows = np.asarray(found.weights[0], np.float64)
    bounds.within(rows.sum(1), np.ones(len(rows)), bounds.shares(rows).sum(1))


@pytest.mark.parametrize("rule", [Aggregator(weighting=SameChoice()), Aggregator(receive=BestOf())])
def test_several_models_and_who_chose_alike_go_together(rule: Aggregator) -> None:
    (line,) = rule.problems()
    assert line.startswith("aggregator.receive: ")
    assert line.endswith("BestOf and SameChoice go together (IFCA)")


def test_choices_remember_apart() -> None:
    """Each finds what it wrote and nothing of the others', in the file too."""
    rule = Aggregator(
        subject=Subject(vectors="averaged", average="products"), weighting=Clusters(), server_momentum=0.5
    )
    state = rule.init(jnp.asarray(reference()), 6)
    state, _ = rule.update(state, vectors(task_vectors(0)), LORA)
    names = {choice: set(state.of(choice)) for choice in state.memory}
    assert names == {
        "subject": {"vectors.sum", "vectors.weight", "products.sum", "products.weight"},
        "weighting": {"labels"},
        "server": {"velocity"},
    }
    assert {key for key in state_tensors(state) if key.startswith("memory.")} == {
        f"memory.{choice}.{name}" for choice, own in names.items() for name in own
    }


@dataclass(frozen=True)
class Broken(Weighting):
    """A weighting of a user's own that divides by zero for one client."""

    def __call__(
        self,
        similarity: Float[jax.Array, "groups n n"],
        mask: Bool[jax.Array, "n"],
        num_examples: Int[jax.Array, "n"],
    ) -> Float[jax.Array, "groups n n"]:
        return jnp.ones_like(similarity).at[:, 2].set(jnp.nan)


@pytest.mark.parametrize("on_disk", [False, True])
def test_weights_that_are_not_numbers_are_refused(on_disk: bool) -> None:
    rule = Aggregator(weighting=Broken())
    state = rule.init(jnp.asarray(reference()), 6)
    if on_disk:
        held: Any = np.array(state.personal)
        state = state._replace(personal=held)
    with pytest.raises(UserError, match=r"Broken gave weights that are not finite in round 1 .*rows 2\)"):
        rule.update(state, vectors(task_vectors(0)), LORA)
