"""The schema of a run: what `configs/*.yaml` and the command line may set. Imports neither torch nor JAX."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from fedpl.conditions import FaultsConfig, ParticipationConfig, PrivacyConfig
from fedpl.data import Source, Tweets
from fedpl.errors import UserError
from fedpl.method import Method
from fedpl.model.settings import LoraSettings, ModelConfig
from fedpl.presets import baseline, file, preset, read_yaml
from fedpl.server import Aggregator
from fedpl.settings import Tree, build, changed, merged, plain
from fedpl.tasks import Classification, Task
from fedpl.tracking.settings import TrackingConfig, WandbConfig
from fedpl.training.settings import ClientConfig, EvaluationConfig, PerClient

__all__ = [
    "ClientConfig",
    "Config",
    "EvaluationConfig",
    "LoraSettings",
    "ModelConfig",
    "PerClient",
    "TrackingConfig",
    "WandbConfig",
    "check",
    "labelled",
    "problems",
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
        accelerator: auto takes a GPU when there is one.
        precision: Arithmetic of training; auto is bf16-mixed on a GPU that has it, else 32-true. bf16-mixed
            also pays on a CPU with avx512_bf16 or amx (about 1.7 times), and is slow on others.
        data: Where clients come from.
        task: What clients learn.
        model: The frozen foundation model.
        lora: The adapter.
        client: How a client fine-tunes.
        aggregator: The server rule.
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
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    data: Source = field(default_factory=Tweets)
    task: Task = Classification()
    model: ModelConfig = ModelConfig()
    lora: LoraSettings = LoraSettings()
    client: ClientConfig = ClientConfig()
    aggregator: Aggregator = Aggregator()
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


def check(config: Config) -> None:
    """Refuse a configuration that can be seen to be wrong.

    Raises:
        UserError: With all that is wrong with it.
    """
    wrong = problems(config)
    if wrong:
        several = "the settings do not fit:\n  " + "\n  ".join(wrong)
        raise UserError(wrong[0] if len(wrong) == 1 else several)


def problems(config: Config) -> list[str]:
    """Everything that can be seen to be wrong with a configuration before any work, one line each."""
    found: list[str] = []

    def need(holds: bool, what: str) -> None:
        if not holds:
            found.append(what)

    need(config.seed >= 0, f"seed: must not be negative, got {config.seed}")
    need(config.rounds >= 1, f"rounds: at least 1, got {config.rounds}")
    found += config.method.problems()
    found += _baseline_problems(config)
    found += _privacy_problems(config)
    sections = (config.model, config.lora, config.client, config.evaluation)
    section: Any
    for section in (*sections, config.participation, config.faults, config.privacy):
        found += section.problems()
    found += config.data.problems()
    found += config.task.problems()
    found += _task_problems(config)
    found += _run_dir_problems(config.run_dir)
    return found


def _baseline_problems(config: Config) -> Sequence[str]:
    try:
        others = config.methods[1:]
    except UserError as error:
        return [str(error)]
    names = [one if isinstance(one, str) else one.name for one in config.baselines]
    found = [] if len(set(names)) == len(names) else ["baselines: name each once"]
    return [*found, *(f"baselines: {one.name}: {what}" for one in others for what in one.problems())]


def _task_problems(config: Config) -> Sequence[str]:
    """Settings that mean nothing where there are no classes and no head."""
    if config.task.headed:
        return ()
    try:
        methods = config.methods
    except UserError:  # a baseline that is not known is named elsewhere
        methods = (config.method,)
    name, client = type(config.task).__name__, config.client
    checks = (
        (client.head_lr == ClientConfig.head_lr, "client.head_lr: there is no head"),
        (not client.mask_absent_classes, "client.mask_absent_classes: there are no classes"),
        (config.model.pooling == ModelConfig.pooling, "model.pooling: nothing is pooled"),
        (config.faults.attack != "label_flip", "faults.attack: label_flip: there are no labels to flip"),
    )
    found = [f"{what} in {name}; leave it out" for holds, what in checks if not holds]
    return [*found, *(line for method in methods for line in method.headless_problems())]


def _privacy_problems(config: Config) -> Sequence[str]:
    if config.privacy.clip is None:
        return ()
    try:
        methods = config.methods
    except UserError:  # a baseline that is not known is named elsewhere
        methods = (config.method,)
    return [
        f"privacy.clip: clients of '{method.name}' say in every round which of several models fits their "
        f"data best, without noise and outside of ε; take another method, or no privacy"
        for method in methods
        if method.aggregator.receive.several
    ]


# What an empty folder may hold: a file system's own folder, and what a kill left before there was a run.
_NOTHING = {"lost+found", ".config.yaml.part", "state"}


def occupied(folder: Path) -> bool:
    """Whether a folder, which is there, holds anything."""
    state = folder / "state"
    begun = state.is_dir() and any(not path.name.startswith((".", "origin.json")) for path in state.iterdir())
    return begun or any(path.name not in _NOTHING for path in folder.iterdir())


def _run_dir_problems(run_dir: str | None) -> Sequence[str]:
    if run_dir is None:
        return ()
    path = Path(run_dir)
    try:
        if path.is_file():
            return [f"run_dir: {run_dir} is a file; name a new or empty folder"]
        if path.is_dir() and occupied(path):
            return [
                f"run_dir: {run_dir} already holds another run or other files; name a new or empty folder"
            ]
    except OSError as error:
        return [f"run_dir: cannot look into {run_dir}: {error.strerror}"]
    return ()
