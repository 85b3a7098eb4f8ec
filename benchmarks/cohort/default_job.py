"""The default job's own clients: what a round costs, what of it is not the model, and 1,000 clients."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from benchmarks.aggregation.timing import PeakMemory
from fedpl.config import ClientConfig, Config, LoraSettings, with_changes
from fedpl.data import ClientData, FederatedData, Split, Tweets
from fedpl.objectives import Plain
from fedpl.records.messages import Report, Work
from fedpl.rounds.federation import Federation
from fedpl.rounds.loop import run_rounds
from fedpl.runs.prepared import prepare
from fedpl.training.stacked.engine import Engine
from fedpl.training.stacked.module import CohortModule


def rounds(config: Config, data: FederatedData, cohorts: bool) -> Callable[[], dict[str, Any]]:
    """A function that runs the job's rounds (scoring included) and reports where the time went."""
    if not cohorts:
        config = replace(config, client=replace(config.client, cohort_size=1))
    executor = prepare(config, data).executor

    def call() -> dict[str, Any]:
        with _inside_the_model() as inside:
            begin = time.perf_counter()
            results = list(run_rounds(Federation(config.method, executor), config.rounds))
            total = time.perf_counter() - begin
        scores = results[-1].aggregated["test"].values()
        return {
            "total_s": total,
            "train_s": sum(result.seconds.train for result in results),
            "evaluate_s": sum(result.seconds.evaluate for result in results),
            "aggregate_s": sum(result.seconds.aggregate for result in results),
            "outside_the_model": 1 - inside[0] / total if cohorts else None,
            "test_accuracy": sum(score["accuracy"] for score in scores) / len(scores),
            "train_loss": sum(report.loss for report in results[-1].reports) / len(data.ids),
        }

    return call


def ways(config: Config, data: FederatedData) -> dict[str, Callable[[], dict[str, Any]]]:
    """One by one, in cohorts, and in cohorts with what else can be switched on."""
    half = replace(config, precision="bf16-mixed")
    quiet = replace(half, client=replace(half.client, model_dropout=False))
    upper = replace(quiet, lora=LoraSettings(layers_to_transform=(3, 4, 5)))
    return {
        "one by one": rounds(config, data, cohorts=False),
        "cohorts": rounds(config, data, cohorts=True),
        "cohorts, bf16": rounds(half, data, cohorts=True),
        "cohorts, bf16, no model dropout": rounds(quiet, data, cohorts=True),
        "the same, adapting the upper half only": rounds(upper, data, cohorts=True),
    }


@contextmanager
def _inside_the_model() -> Iterator[list[float]]:
    """Time in optimiser steps (forward, backward, update) and in forward passes of scoring."""
    spent, depth = [0.0], [0]
    step, answer = CohortModule.training_step, Engine.__call__

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            depth[0] += 1
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                depth[0] -= 1
                if not depth[0]:
                    spent[0] += time.perf_counter() - begin

        return call

    CohortModule.training_step, Engine.__call__ = timed(step), timed(answer)  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        CohortModule.training_step, Engine.__call__ = step, answer  # type: ignore[method-assign]


def many(number: int, precision: str, accelerator: str) -> dict[str, Any]:
    """One round of many clients with 16 examples each: time and memory beyond the matrix of task vectors."""
    source = Tweets(conventions=1).load(0)
    pool = [
        pair
        for client in source.clients
        for pair in zip(client.train.texts, client.train.labels, strict=True)
    ]

    def split(first: int, size: int) -> Split:
        pairs = [pool[(first + i) % len(pool)] for i in range(size)]
        return Split(tuple(text for text, _ in pairs), tuple(label for _, label in pairs))

    data = FederatedData(
        tuple(
            ClientData(f"c{i}", split(7 * i, 16), split(7 * i + 16, 2), split(7 * i + 18, 2))
            for i in range(number)
        ),
        source.classes,
    )
    client = ClientConfig(epochs=1, model_dropout=False)
    config = with_changes(Config(client=client), {"precision": precision, "accelerator": accelerator})
    executor = prepare(config, data).executor
    census = executor.join()
    matrix = torch.ones(number, census.layout.size)  # touched, so that it is in memory already
    work = [Work(client, 1, census.initial, (), Plain()) for client in census.clients]
    company = executor.plan(work)
    begin = time.perf_counter()
    with PeakMemory() as peak:
        answers = list(executor.train(work, company, dict(zip(census.clients, matrix, strict=True))))
    seconds = time.perf_counter() - begin
    assert len(answers) == number
    assert all(isinstance(answer, Report) for answer in answers)
    assert matrix.abs().amax(1).min() > 0
    return {
        "clients": number,
        "cohort": company.capacity["size"],
        "precision": census.place.split(", ")[1],
        "seconds_per_client": seconds / number,
        "matrix_bytes": matrix.nbytes,
        "peak_bytes_beyond": peak.extra,
    }
