"""Small jobs in which methods and options meet: what is killed."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from fedpl.model.base import resolve
from fedpl.model.settings import ModelConfig

_COMMON = (
    "--data=fedpl.data.Tweets",
    "--data.topics=[united,jetblue]",  # two clients each, with opposite labels
    "--data.train_examples=8",
    "--data.validation_examples=8",
    "--data.test_examples=8",
    "--model.max_length=32",
    "--lora.r=2",
    "--client.epochs=1",
    "--client.batch_size=4",
    "--rounds=3",
    "--accelerator=cpu",
    "--baselines=[]",
    "--tracking.plots=false",
    "--tracking.wandb.mode=disabled",
)
_WANDB = "--tracking.wandb.mode=offline"
_PICTURES = "--tracking.plots=true"
_HALF = "--participation.fraction=0.5"
JOBS: dict[str, tuple[str, ...]] = {
    "fedbip, baselines, pictures": ("--method=fedbip", "--baselines=[local,fedavg]", _PICTURES),
    "fedbip_l, cohorts of 2, W&B": ("--method=fedbip_l", "--client.cohort_size=2", _WANDB),
    "fedbip_g, one by one": ("--method=fedbip_g", "--client.cohort_size=1", "--store_vectors=true"),
    "fedbip_avg, momentum": (
        "--method=fedbip_avg",
        "--aggregator.server_momentum=0.9",
        "--aggregator.server_lr=0.5",
        "--baselines=[fedavg]",
    ),
    "fedbip, absent ones discounted": (
        "--method=fedbip",
        _HALF,
        "--aggregator.stale_discount=0.5",
        "--rounds=4",
        "--store_vectors=bf16",
    ),
    "fedbip, private, baselines": (
        "--method=fedbip",
        "--privacy.clip=1.0",
        "--privacy.noise_multiplier=0.1",
        "--baselines=[local,fedavg]",
    ),
    "fedbip, W&B, pictures": ("--method=fedbip", _WANDB, _PICTURES, "--evaluation.every=0"),
    "fedbip, two clients": ("--method=fedbip", "--data.topics=[united]", "--baselines=[fedavg]", _PICTURES),
    "fedbip, one client": ("--method=fedbip", "--data.topics=[united]", "--data.conventions=1"),
    "fedbip, half, on disk": (
        "--method=fedbip",
        _HALF,
        "--aggregator.stale_discount=0.5",
        "--server.storage=disk",
        "--server.memory_budget=1",
        "--store_vectors=true",
        "--rounds=4",
        "--baselines=[fedavg]",
    ),
    "fedbip_l, half, sharded": (
        "--method=fedbip_l",
        _HALF,
        "--server.storage=sharded",
        "--server.memory_budget=1",
        "--rounds=4",
        "--baselines=[fedavg]",
    ),
    "fedavg, lost and late": ("--method=fedavg", "--faults.lost=0.3", "--faults.late=0.2", "--rounds=4"),
    "ditto, half of the clients": ("--method=ditto", _HALF, "--rounds=4", "--baselines=[fedavg]"),
    "apfl, private": ("--method=apfl", "--privacy.clip=1.0", "--privacy.noise_multiplier=0.1"),
    "feddpa, one by one, half": ("--method=feddpa", "--client.cohort_size=1", _HALF, "--rounds=4"),
    "ifca, W&B": ("--method=ifca", _WANDB, "--client.cohort_size=3"),
    "flora, pictures": ("--method=flora", _PICTURES),
    "fedex, half, baselines": ("--method=fedex", _HALF, "--baselines=[fedavg]"),
    "clusters": ("--method=clusters", "--rounds=4", "--store_vectors=true"),
    "cfl, one by one": ("--method=cfl", "--client.cohort_size=1", "--rounds=4"),
    "pfedgraph, W&B, pictures": ("--method=pfedgraph", _WANDB, _PICTURES),
    "fedawa, attacked": ("--method=fedawa", "--faults.hostile=0.25", "--faults.attack=gaussian"),
}


def arguments(job: str, model: Path) -> list[str]:
    """What is given to ``python -m fedpl.fit``."""
    return [f"--model.path={model}", *_COMMON, *JOBS[job]]


def make_model(folder: Path) -> int:
    """Write a model of the default's kind with two small random layers; 0."""
    source = resolve(ModelConfig().path)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.from_pretrained(source, **sizes)).save_pretrained(folder)
    return 0
