"""Whom an alert names: those harmed by what answers for them."""

from dataclasses import replace
from typing import Any

from fedpl.records.results import RunSummary
from fedpl.tracking.closing import alert, comparison
from tests.made_up import result, scores, summary


class Phone:
    """A run of W&B that remembers what it would send."""

    name = "a run"

    def __init__(self) -> None:
        self.sent: list[str] = []

    def alert(self, title: str, text: str, **_: Any) -> None:
        self.sent.append(f"{title}: {text}")


def guarded(found: RunSummary, values: dict[str, float]) -> RunSummary:
    """The same with what its clients chose."""
    clients = {
        client: replace(own, scores=replace(own.scores, chosen=scores(values[client])))
        for client, own in found.clients.items()
    }
    mean = replace(found.test.mean, chosen=scores(sum(values.values()) / len(values)))
    return replace(found, clients=clients, test=replace(found.test, mean=mean))


def test_with_a_guard_it_is_what_clients_chose() -> None:
    alone = {"local": result({"a": 0.8, "b": 0.6})}
    plain, phone = summary({"a": 0.5, "b": 0.7}, baselines=alone), Phone()
    alert(phone, plain)
    assert len(phone.sent) == 1
    assert phone.sent[0].endswith(": a (run a run)")
    better = guarded(plain, {"a": 0.8, "b": 0.7})
    alert(phone, better)
    assert len(phone.sent) == 1
    assert comparison(better)["over_local/chosen/harmed"] == 0.0
    assert comparison(better)["over_local/aggregated/harmed"] == 1.0
    assert "over_local/chosen/harmed" not in comparison(plain)
