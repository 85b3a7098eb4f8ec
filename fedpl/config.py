"""The schema of a run: what `configs/*.yaml` and the command line may set. Imports neither torch nor JAX."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from fedpl.conditions import FaultsConfig, ParticipationConfig, PrivacyConfig
from fedpl.data import Source, Tweets
from fedpl.executors.settings import ExecutorConfig
from fedpl.method import Method
from fedpl.model.settings import LoraSettings, ModelConfig
from fedpl.presets import baseline, file, preset, read_yaml
from fedpl.server import Aggregator
from fedpl.server.storage import ServerConfig
from fedpl.settings import Tree, build, changed, merged, plain
from fedpl.tasks import Classification, Task
from fedpl.tracking.settings import TrackingConfig, WandbConfig
from fedpl.training.settings import ClientConfig, EvaluationConfig, PerClient

__all__ = [
    "ClientConfig",
    "Config",
    "EvaluationConfig",
    "ExecutorConfig",
    "LoraSettings",
    "ModelConfig",
    "PerClient",
    "TrackingConfig",
    "WandbConfig",
    "labelled",
    "with_changes",
]


@dataclass(frozen=True)
class Config:
    """Personalised federated fine-tuning by task-vector aggregation.

    Attributes:
        name: What tables and plots call the method.
        seed: Seed of every random stream of the run.
        rounds: Communication rounds.
        run_dir: Where the run is written; null makes a new folder under ``runs/``.
        start_from: A finished run with whose models this one begins: each client with its own last
            aggregate, a client that it did not have with their mean; null: all begin at θ₀.
        accelerator: auto takes a GPU when there is one.
        precision: Arithmetic of training; auto is bf16-mixed on a GPU that has it, else 32-true. bf16-mixed
            also pays on a CPU with avx512_bf16 or amx (about 1.7 times), and is slow on others.
        data: Where clients come from.
        task: What clients learn.
        model: The frozen foundation model.
        lora: The adapter.
        client: How a client fine-tunes.
        aggregator: The server rule.
        server: Where the server keeps task vectors.
        executor: Who trains the clients: this process, workers beside it, Ray actors, or sites elsewhere.
        participation: Who takes part in a round, and whose task vector counts.
        faults: Simulated faults and attacks.
        privacy: Differential privacy of what clients send.
        baselines: Methods that are also run on the same clients, seeds and steps, for the closing table:
            names of files in configs/method, or a name with an objective and an aggregator; the method itself
            is not run twice.
        evaluation: When and how clients are scored.
        tracking: What is recorded and shown.
        store_vectors: Whether to keep every round's task vectors under ``vectors/``, for python -m
            fedpl.replay: true or f32: as they are; bf16: in half the space, and replays are near, not exact.
    """

    name: str = "fedbip"
    seed: int = 0
    rounds: int = 5
    run_dir: str | None = None
    start_from: str | None = None
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    data: Source = field(default_factory=Tweets)
    task: Task = Classification()
    model: ModelConfig = ModelConfig()
    lora: LoraSettings = LoraSettings()
    client: ClientConfig = ClientConfig()
    aggregator: Aggregator = Aggregator()
    server: ServerConfig = ServerConfig()
    executor: ExecutorConfig = ExecutorConfig()
    participation: ParticipationConfig = ParticipationConfig()
    faults: FaultsConfig = FaultsConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    baselines: tuple[str | Method, ...] = ("local", "fedavg")
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()
    store_vectors: bool | Literal["bf16", "f32"] = False

    @property
    def method(self) -> Method:
        """The method."""
        return Method(self.name, self.client.objective, self.aggregator)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The method, then the baselines.

        Raises:
            UserError: If a baseline's name is not known.
        """
        others = (baseline(one) if isinstance(one, str) else one for one in self.baselines)
        return (self.method, *(one for one in others if one.name != self.name))

    @classmethod
    def load(cls, path: str | Path, **changes: Any) -> "Config":
        """The settings of a YAML file; it may name a method, whose settings it then changes.

        Args:
            path: A file, or the name of one that ships (``debug``, ``method/fedbip_l``).
            changes: As of `with_changes`.

        Raises:
            UserError: If there is no such file, or its settings do not fit.
        """
        tree = labelled(read_yaml(file(str(path))))
        method = {"method": tree.pop("method")} if "method" in tree else {}
        lowest = plain(with_changes(cls(), method))
        return with_changes(build(cls, merged(lowest, tree)), changes)

    @classmethod
    def of(cls, method: str, **changes: Any) -> "Config":
        """The default job under a method of this name; changes as of `with_changes`."""
        return with_changes(cls(), {"method": method, **changes})

    def to_yaml(self) -> str:
        """All settings as YAML; `load` reads them, and so does ``--config``."""
        return yaml.safe_dump(plain(self), sort_keys=False, allow_unicode=True)


def with_changes(config: Config, changes: Mapping[str, Any]) -> Config:
    """A configuration with other settings.

    Args:
        config: The configuration.
        changes: Values by dotted key, as on the command line: ``{"client.lr": 1e-3, "method": "fedbip_l"}``;
            in keywords ``client__lr`` means the same.

    Raises:
        UserError: If there is no such setting, or the value is of another kind.
    """
    named = {key.replace("__", "."): value for key, value in changes.items()}
    tree = plain(config)
    if "method" in named:
        tree = merged(tree, preset(named.pop("method")).settings)
    return build(Config, changed(tree, named))


def labelled(tree: Tree) -> Tree:
    """The keys of a file; older run directories have the method's label under ``method``, not ``name``."""
    old = "run_dir" in tree and "name" not in tree and "method" in tree
    return {("name" if old and key == "method" else key): value for key, value in tree.items()}
