"""One fit by Lightning: a scheduler's variables are no ranks of it, signals and interrupts stay ours."""

import signal

import pytest

from fedpl.cli import make_parser, read
from fedpl.objectives import Plain
from fedpl.records.messages import Work
from fedpl.runs.prepared import prepare
from fedpl.training.stacked.module import CohortModule
from tests.executors.test_executor import start_of, train


@pytest.mark.parametrize(
    "variables", [{"SLURM_NTASKS": "2"}, {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}]
)
@pytest.mark.parametrize("size", ["1", "auto"])
def test_two_tasks_of_a_job_train(
    variables: dict[str, str], size: str, small_run: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning ended the run with "You set --ntasks=2", or took the signals of every fit."""
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "sweep", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    for name, value in {**job, "SLURM_NODEID": "0", "SLURM_NNODES": "1", **variables}.items():
        monkeypatch.setenv(name, value)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    executor = prepare(read(make_parser("fit", ""), [*small_run, f"--client.cohort_size={size}"])).executor
    work = [Work(client, 1, start_of(executor), (), Plain()) for client in executor.join().clients]
    assert len(train(executor, work)) == 3
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_an_interrupt_in_the_middle_of_a_fit_stays_one(
    small_run: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning would end the process with code 1 and without a word of how to go on."""

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    executor = prepare(read(make_parser("fit", ""), small_run)).executor
    monkeypatch.setattr(CohortModule, "training_step", interrupted)
    work = [Work(client, 1, start_of(executor), (), Plain()) for client in executor.join().clients]
    with pytest.raises(KeyboardInterrupt):
        train(executor, work)
