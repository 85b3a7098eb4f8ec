"""What can be seen to be wrong with a configuration before any work."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpl.config import Config
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.method import Method
from fedpl.model.settings import ModelConfig
from fedpl.server.storage import problems_on_disk
from fedpl.training.settings import ClientConfig

if TYPE_CHECKING:
    from fedpl.runs import earlier
else:
    earlier = deferred("fedpl.runs.earlier")


def check(config: Config, begun: bool = False) -> None:
    """Refuse a configuration that can be seen to be wrong.

    Args:
        config: The configuration.
        begun: Whether it is of a run that has begun: it holds what it started from, which may be gone.

    Raises:
        UserError: With all that is wrong with it.
    """
    wrong = problems(config)
    if config.start_from is not None and not begun:
        wrong += earlier.problems(config)
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
    matrices = config.tracking.wandb.matrices
    need(matrices is None or matrices >= 0, f"tracking.wandb.matrices: null or from 0, got {matrices}")
    found += config.method.problems()
    found += _baseline_problems(config)
    found += _privacy_problems(config)
    found += _storage_problems(config)
    found += _quantised_problems(config)
    found += _guard_problems(config)
    sections = (config.model, config.lora, config.client, config.evaluation)
    section: Any
    for section in (
        *sections,
        config.server,
        config.executor,
        config.participation,
        config.faults,
        config.privacy,
    ):
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


def _methods(config: Config) -> Sequence[Method]:
    """The method and the baselines; a baseline that is not known is named elsewhere."""
    try:
        return config.methods
    except UserError:
        return (config.method,)


def _quantised_problems(config: Config) -> Sequence[str]:
    if config.model.quantized is None:
        return ()
    return [
        f"model.quantized: '{method.name}' changes the frozen weights, which are packed in "
        f"{config.model.quantized}; take another method, or null"
        for method in _methods(config)
        if method.aggregator.combine.shifts_base
    ]


def _guard_problems(config: Config) -> Sequence[str]:
    """Methods whose clients do not use one adapter on weights that stay."""
    if config.client.guard == "none":
        return ()
    return [
        f"client.guard: '{method.name}' "
        f"{'uses two adapters at once' if method.objective.in_pairs else 'changes the frozen weights'}, of "
        f"which there is no half; take another method, or none"
        for method in _methods(config)
        if method.objective.in_pairs or method.aggregator.combine.shifts_base
    ]


def _task_problems(config: Config) -> Sequence[str]:
    """Settings that mean nothing where there are no classes or no head."""
    name, client, headed = type(config.task).__name__, config.client, config.task.headed
    if config.task.labelled:
        return ()
    checks = (
        (headed or client.head_lr == ClientConfig.head_lr, "client.head_lr: there is no head"),
        (not client.mask_absent_classes, "client.mask_absent_classes: there are no classes"),
        (headed or config.model.pooling == ModelConfig.pooling, "model.pooling: nothing is pooled"),
        (config.faults.attack != "label_flip", "faults.attack: label_flip: there are no labels to flip"),
    )
    found = [f"{what} in {name}; leave it out" for holds, what in checks if not holds]
    if headed:
        return found
    return [*found, *(line for method in _methods(config) for line in method.headless_problems())]


def _privacy_problems(config: Config) -> Sequence[str]:
    if config.privacy.clip is None:
        return ()
    found = []
    for method in _methods(config):
        if method.aggregator.receive.several:
            found.append(
                f"privacy.clip: clients of '{method.name}' say in every round which of several models fits "
                f"their data best, without noise and outside of ε; take another method, or no privacy"
            )
        if method.aggregator.weighting.halves:
            found.append(
                f"privacy.clip: clients of '{method.name}' say what two halves of their data have in common, "
                f"without noise and outside of ε; take another method, such as fedbip_t, or no privacy"
            )
    return found


def _storage_problems(config: Config) -> Sequence[str]:
    if not config.server.on_disk:
        return ()
    return [
        f"{method.name}: {line}"
        for method in _methods(config)
        for line in problems_on_disk(method.aggregator)
    ]


# What an empty folder may hold: a file system's own folder, and what a kill left before there was a run.
_NOTHING = {"lost+found", ".config.yaml.part", "state"}


def occupied(folder: Path) -> bool:
    """Whether a folder, which is there, holds anything."""
    state = folder / "state"
    begun = state.is_dir() and any(
        not path.name.startswith((".", "origin.json", "start")) for path in state.iterdir()
    )
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
