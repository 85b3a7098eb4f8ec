"""fedpl from Python: run a configuration, go on with a run, load what it left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpl.config import Config, with_changes
from fedpl.deferred import deferred
from fedpl.opened import Run
from fedpl.problems import check

if TYPE_CHECKING:
    from rich import console

    from fedpl.page import write as page
    from fedpl.runs import adapters, experiment, resume, together
else:
    adapters, experiment, resume, together = (
        deferred(f"fedpl.runs.{name}") for name in ("adapters", "experiment", "resume", "together")
    )
    console, page = map(deferred, ("rich.console", "fedpl.page.write"))


def run(config: Config | None = None, **changes: Any) -> Run:
    """Run a configuration; what ``python -m fedpl.fit`` does.

    Args:
        config: What to run; None: the default job.
        changes: Other settings, in keywords: ``rounds=3``, ``client__lr=1e-3``, ``method="fedbip_l"``.

    Raises:
        UserError: If settings, data or model do not fit; before the run directory is made.
    """
    config = with_changes(config or Config(), changes) if changes else config or Config()
    check(config)
    return _reported(experiment.run(config, console.Console()), config)


def go_on(run_dir: str | Path, **changes: Any) -> Run:
    """Go on with an interrupted run exactly where it stood; what ``python -m fedpl.fit --resume`` does.

    Args:
        run_dir: Its directory.
        changes: More ``rounds``, other ``tracking__...``.

    Raises:
        UserError: If the folder holds no run, or a change would make it another run.
    """
    saved = resume.saved_configuration(Path(run_dir))
    config = with_changes(saved, changes)
    check(config, begun=True)
    resume.refuse_changes(saved, config)
    return _reported(experiment.run(config, console.Console(), resume=Path(run_dir)), config)


def _reported(path: Path, config: Config) -> Run:
    page.write_at_end(path, config.tracking)
    return Run(path)


def load(
    run: str | Path | Run,
    client: str,
    personal: bool = False,
    base: str | Path | None = None,
    newcomer: bool = False,
    model: adapters.Served = "aggregated",
) -> adapters.ClientModel:
    """A client's model of a run, ready to answer: ``predict(texts)``, ``logits(texts)``, PEFT's ``model``.

    Args:
        run: The run, or its directory.
        client: The client's id.
        personal: The model that the client keeps beside its aggregate (Ditto, APFL), instead.
        base: Where the frozen model lies now, if not where it did when the run was made.
        newcomer: Whether it is one that joined when the run had ended, see `Run.onboard`.
        model: best: what the client chose by its validation data, in a run with ``client.guard: validation``.

    Raises:
        UserError: If there is no such adapter, or the frozen model is not there or has other weights.
    """
    path = run.path if isinstance(run, Run) else Path(run)
    return adapters.load(path, client, personal, None if base is None else str(base), newcomer, model=model)


def load_all(
    run: str | Path | Run,
    clients: Sequence[str] | None = None,
    base: str | Path | None = None,
    newcomer: bool = False,
    model: adapters.Served = "aggregated",
) -> together.ClientModels:
    """Several clients' models on one frozen model: ``predict(texts, clients)``, ``logits(texts, clients)``.

    Rows of different clients go through in one pass, by PEFT's ``adapter_names``.

    Args:
        run: The run, or its directory.
        clients: Whose; None: all that have an adapter.
        base: As of `load`; likewise newcomer.
        newcomer: Whether they are such as joined when the run had ended.
        model: As of `load`.

    Raises:
        UserError: As of `load`.
    """
    path = run.path if isinstance(run, Run) else Path(run)
    if clients is None:
        clients = adapters.clients_with_adapters(path, newcomer)
    return together.load_all(path, clients, None if base is None else str(base), newcomer, model)
