"""Where the clients of a run live: data, model, and what trains them. Workers do this too: no JAX here."""

import torch

from fedpl.config import Config
from fedpl.data import FederatedData, describe
from fedpl.executors.here import Here
from fedpl.model.base import BaseModel
from fedpl.model.foundation import Foundation
from fedpl.model.hardware import choose_hardware
from fedpl.model.settings import ModelConfig
from fedpl.model.untrained import is_untrained
from fedpl.randomness import derive_seed
from fedpl.runs.sharing import release, shifts
from fedpl.site.faults import Faults, with_false_labels
from fedpl.site.site import Site
from fedpl.training.alone.backend import Alone
from fedpl.training.backend import Backend
from fedpl.training.partitions import partitions_of
from fedpl.training.stacked.backend import Stacked
from fedpl.training.worker import Worker


def here(
    config: Config,
    data: FederatedData | None = None,
    base: BaseModel | None = None,
    device: torch.device | None = None,
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
    worker = Worker(backend_of(config, data, base))
    faults = Faults(data.ids, config.faults, config.seed)
    site = Site(data, worker, config.privacy, faults, config.seed, release(config))
    return Here(site, device, (*describe(data), *_cut(worker, config.model), *_untrained(config.model)))


def _cut(worker: Worker, model: ModelConfig) -> tuple[str, ...]:
    """That prompts were cut, where the task counts them."""
    examples = worker.partitions.examples.values()
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
    return with_false_labels(data, config.faults, config.seed)


def backend_of(config: Config, data: FederatedData, base: BaseModel | None = None) -> Backend:
    """What trains the clients of a run in this process.

    Raises:
        UserError: If the model or the hardware is not as configured, or client.per_client names a client that
            the data does not have.
    """
    hardware = choose_hardware(config.accelerator, config.precision)
    partitions = partitions_of(config.task, config.client, config.model, config.seed, data, config.rounds)
    base = base or config.task.base(config.model, data.classes)
    init = derive_seed(config.seed, "init")
    foundation = Foundation(base, config.lora, config.model.path, init, hardware, shifts(config))
    if config.client.cohort_size == 1:
        return Alone(foundation, partitions, config.evaluation.batch_size)
    return Stacked(foundation, partitions)
