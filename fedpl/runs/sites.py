"""Where the clients of a run live: data, model, and what trains them. Workers do this too: no JAX here."""

from typing import TYPE_CHECKING

from fedpl.config import Config
from fedpl.data import FederatedData, describe
from fedpl.deferred import deferred
from fedpl.executors.here import Here
from fedpl.model.settings import ModelConfig
from fedpl.model.untrained import is_untrained
from fedpl.randomness import derive_seed
from fedpl.runs.sharing import release, shifts

if TYPE_CHECKING:
    from fedpl.model import base as models
    from fedpl.model import foundation as foundations
    from fedpl.model import hardware
    from fedpl.site import faults
    from fedpl.site import site as homes
    from fedpl.training import backend, partitions, worker
    from fedpl.training.alone import backend as alone
    from fedpl.training.stacked import backend as stacked
else:  # a driver whose clients are elsewhere needs none of this, nor torch and Lightning behind it
    models, foundations, hardware = (
        deferred(f"fedpl.model.{name}") for name in ("base", "foundation", "hardware")
    )
    faults, homes = map(deferred, ("fedpl.site.faults", "fedpl.site.site"))
    backend, partitions, worker = (
        deferred(f"fedpl.training.{name}") for name in ("backend", "partitions", "worker")
    )
    alone, stacked = (deferred(f"fedpl.training.{name}.backend") for name in ("alone", "stacked"))


def here(
    config: Config,
    data: FederatedData | None = None,
    base: "models.BaseModel | None" = None,
    device: str | None = None,
) -> Here:
    """Read the data, load the model, let the clients move in at a site in this process.

    Args:
        config: The run.
        data: The clients, where they have been read already, with the labels that they believe in.
        base: The foundation model, where it has been loaded already; it is changed.
        device: Where the server keeps task vectors; None: where clients train.

    Raises:
        UserError: If data, model or hardware are not as configured.
    """
    data = data or clients_of(config)
    trainer = worker.Worker(backend_of(config, data, base))
    wrong = faults.Faults(data.ids, config.faults, config.seed)
    site = homes.Site(data, trainer, config.privacy, wrong, config.seed, release(config))
    return Here(site, device, (*describe(data), *_cut(trainer, config.model), *_untrained(config.model)))


def _cut(trainer: "worker.Worker", model: ModelConfig) -> tuple[str, ...]:
    """That prompts were cut, where the task counts them."""
    examples = trainer.partitions.examples.values()
    cut, all = sum(own.cut for own in examples), sum(map(len, examples))
    what = f"prompts are cut from the left to model.max_length {model.max_length}"
    return (f"warning: {cut:,} of {all:,} {what}",) if cut else ()


def _untrained(model: ModelConfig) -> tuple[str, ...]:
    """That a model was never trained."""
    if not is_untrained(model.path):
        return ()
    return (
        f"warning: {model.path} has random weights and was never trained: scores say how methods compare on "
        f"it, not what a model of images can do",
    )


def clients_of(config: Config) -> FederatedData:
    """The data of a run, as the clients see them."""
    data = config.task.take(config.data.load(config.seed))
    return faults.with_false_labels(data, config.faults, config.seed)


def backend_of(
    config: Config, data: FederatedData, base: "models.BaseModel | None" = None
) -> "backend.Backend":
    """What trains the clients of a run in this process.

    Raises:
        UserError: If the model or the hardware is not as configured, or client.per_client names a client that
            the data does not have.
    """
    machine = hardware.choose_hardware(config.accelerator, config.precision)
    of_clients = partitions.partitions_of(
        config.task, config.client, config.model, config.seed, data, config.rounds
    )
    base = base or config.task.base(config.model, data.classes)
    init = derive_seed(config.seed, "init")
    foundation = foundations.Foundation(base, config.lora, config.model.path, init, machine, shifts(config))
    if config.client.cohort_size == 1:
        return alone.Alone(foundation, of_clients, config.evaluation.batch_size)
    return stacked.Stacked(foundation, of_clients)
