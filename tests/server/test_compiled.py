"""The server's step as one program: the same numbers, few compilations, kept between processes."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Bool, Float, Int

from fedpl.presets import baseline, names
from fedpl.server import Aggregator, Weighting
from fedpl.server import step as steps
from tests.server.conftest import LORA, reference, task_vectors, vectors

HOST = {"cfl", "clusters", "fedbip_g", "fedbip_h", "fedbip_t"}
ROOT = Path(__file__).parents[2]


def rounds(rule: Aggregator, masks: list[list[bool]]) -> list[np.ndarray]:
    """Aggregates and weights of some rounds."""
    state = rule.init(jnp.asarray(reference()), len(masks[0]))
    found = []
    for seed, mask in enumerate(masks):
        state, aggregation = rule.update(state, vectors(task_vectors(seed), mask=mask), LORA)
        found += [np.asarray(state.personal), np.asarray(aggregation.weights)]
    return found


ALL, SOME, OTHERS = [True] * 6, [True] * 4 + [False] * 2, [False] * 2 + [True] * 4


@pytest.mark.parametrize("name", ["fedbip", "fedbip_l", "fedavg", "fedawa", "flora", "fedamp", "fedbip_w"])
def test_compiled_or_not_the_numbers_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = baseline(name).aggregator
    compiled = rounds(rule, [ALL, SOME])
    monkeypatch.setattr(steps, "_NOT_COMPILED", {rule})
    for one, other in zip(compiled, rounds(rule, [ALL, SOME]), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


def test_every_preset_without_clusters_is_compiled() -> None:
    shipped = {
        name: baseline(name).aggregator for name in names("method") if name not in ("fedper", "fedrep")
    }
    assert {name for name, rule in shipped.items() if rule.weighting.on_host} == HOST


def test_who_is_there_does_not_matter_to_the_program() -> None:
    """One for all clients, one for some of them; a rule that remembers has one more for its first round."""
    rule = Aggregator(server_lr=0.123)
    before = steps._compiled._cache_size()
    rounds(rule, [ALL, SOME, OTHERS, ALL, SOME, [True] + [False] * 5])
    assert steps._compiled._cache_size() - before == 2
    before = steps._compiled._cache_size()
    rounds(Aggregator(server_lr=0.123, server_momentum=0.5), [ALL] * 4)
    assert steps._compiled._cache_size() - before == 2


@dataclass(frozen=True)
class Own(Weighting):
    """A weighting of a user's own that looks at numbers in Python, and does not say so."""

    def __call__(
        self,
        similarity: Float[jax.Array, "groups n n"],
        mask: Bool[jax.Array, "n"],
        num_examples: Int[jax.Array, "n"],
    ) -> Float[jax.Array, "groups n n"]:
        if float(similarity[0, 0, 1]) > 2:
            raise AssertionError
        return jnp.asarray(np.broadcast_to(np.eye(len(np.asarray(mask)), dtype=np.float32), similarity.shape))


def test_a_rule_that_cannot_be_compiled_works_all_the_same() -> None:
    found = rounds(Aggregator(weighting=Own()), [ALL, SOME])
    np.testing.assert_array_equal(found[1][0], np.eye(6))
    assert Aggregator(weighting=Own()) in steps._NOT_COMPILED


PROGRAM = """
import fedpl.interop
import jax, jax.numpy as jnp
jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((7, 9))).block_until_ready()
print(jax.config.jax_compilation_cache_dir)
"""


def run(home: Path, **environment: str) -> str:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XDG_"))}
    own |= {"XDG_CACHE_HOME": str(home), **environment}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=own, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "nothing is said about it"
    return done.stdout.strip()


def test_a_second_process_finds_the_programs_of_the_first(tmp_path: Path) -> None:
    folder = Path(run(tmp_path))
    assert folder.parent == tmp_path / "fedpl"
    kept = {path.name for path in folder.glob("*-cache")}
    assert kept
    assert run(tmp_path) == str(folder)
    assert {path.name for path in folder.glob("*-cache")} == kept


def test_where_nothing_can_be_kept_nothing_is_and_the_user_s_word_counts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file") == "None"
    own = str(tmp_path / "own")
    assert run(tmp_path, JAX_COMPILATION_CACHE_DIR=own) == own
    assert not (tmp_path / "fedpl").exists()
