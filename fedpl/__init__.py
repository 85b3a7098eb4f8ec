"""Personalised federated fine-tuning of foundation models by task-vector aggregation.

    import fedpl

    run = fedpl.run(fedpl.Config.of("fedbip_l", rounds=3))
    run.summary, run.rounds, run.weights(), fedpl.load(run, "united-a")

What is named here is the public surface; `fedpl.data`, `fedpl.objectives`, `fedpl.server` and `fedpl.tasks`
hold the choices that a configuration is made of.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpl.api import Run, go_on, load, load_all, run
    from fedpl.config import Config
    from fedpl.errors import UserError
    from fedpl.method import Method
    from fedpl.objectives import Objective
    from fedpl.server import Aggregator
    from fedpl.tasks import Task

__version__ = "0.1.0"
__all__ = [
    "Aggregator",
    "Config",
    "Method",
    "Objective",
    "Run",
    "Task",
    "UserError",
    "go_on",
    "load",
    "load_all",
    "run",
]

_HOME = {
    **dict.fromkeys(("Run", "go_on", "load", "load_all", "run"), "fedpl.api"),
    "Aggregator": "fedpl.server",
    "Config": "fedpl.config",
    "Method": "fedpl.method",
    "Objective": "fedpl.objectives",
    "Task": "fedpl.tasks",
    "UserError": "fedpl.errors",
}


def __getattr__(name: str) -> Any:
    # At first use: a command that asks for help does not pay for what it does not need.
    if name not in _HOME:
        raise AttributeError(f"module 'fedpl' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
