"""The view of W&B's workspace: every panel shows what runs log."""

import json
from typing import Any

import pytest

from fedpl.records.plain import flat
from fedpl.records.scores import Metric
from fedpl.tasks.metrics import CLASSIFICATION
from fedpl.tracking import closing, rows
from fedpl.tracking.workspace import workspace
from tests.made_up import REGRESSION, record, result, summary

pytest.importorskip("wandb_workspaces")


@pytest.mark.parametrize("metrics", [CLASSIFICATION, REGRESSION])
def test_every_panel_shows_what_is_logged(metrics: tuple[Metric, ...]) -> None:
    values = {"a": 0.5, "b": 0.75}
    found, row = summary(values, metrics, {"local": result(values, metrics)}), record(values, metrics)
    history = {*flat(row.to_json()), *rows.diagnostics(row.clients)}
    closed = {*closing.scores("test", found.test, metrics), *closing.comparison(found)}
    sent = json.loads(workspace("someone", "fedpl", metrics[0])._to_model().model_dump_json(by_alias=True))
    sections = sent["spec"]["section"]["panelBankConfig"]["sections"]
    panels: list[Any] = [panel for section in sections for panel in section["panels"]]
    assert len(panels) == 10
    assert sum(len(section["panels"]) > 0 for section in sections) == 4
    for panel in panels:
        curve = panel["viewType"] == "Run History Line Plot"
        assert set(panel["config"]["metrics"]) <= (history if curve else closed), panel
        assert panel["config"].get("xAxis", "round") == "round"
