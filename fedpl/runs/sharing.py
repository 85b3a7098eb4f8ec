"""What runs can share, by their settings alone."""

import hashlib
from dataclasses import replace

from fedpl.config import ClientConfig, Config
from fedpl.training.settings import EvaluationConfig

_HOW = (
    "guard",
    "cohort_size",
    "tokens_per_pass",
    "prefix_cache_mb",
    "gradient_checkpointing",
    "compile",
)


def shifts(config: Config) -> bool:
    """Whether a method changes the frozen weights."""
    return any(method.aggregator.combine.shifts_base for method in config.methods)


def sealed(config: Config) -> bool:
    """Whether what clients send differs from what they keep."""
    return private(config) or config.faults.hostile > 0


def private(config: Config) -> bool:
    """Whether noise is added for privacy: each method of a run draws its own, so they share no answers."""
    return config.privacy.clip is not None


def release(config: Config) -> str:
    """Digest of the settings that shape task vectors: runs that differ in them draw other noise.

    Without what makes a run longer, shows it, says how it is computed or what clients use in the end: that
    gives the same task vectors.
    """
    default, client = Config(), ClientConfig()
    free: tuple[str, ...] = ("run_dir", "baselines", "evaluation", "tracking", "store_vectors")
    free += ("accelerator", "executor", "server")
    free += () if config.client.rates.needs_rounds else ("rounds",)
    own = replace(
        config,
        client=replace(config.client, **{name: getattr(client, name) for name in _HOW}),
        **{name: getattr(default, name) for name in free},
    )
    return hashlib.blake2b(own.to_yaml().encode(), digest_size=16).hexdigest()


def client_side(config: Config) -> Config:
    """The settings that decide what a client's training and scoring give; all others at their defaults."""
    default = Config()
    server = ("name", "rounds", "run_dir", "aggregator", "executor", "baselines", "tracking", "store_vectors")
    evaluation = replace(config.evaluation, every=EvaluationConfig().every)
    return replace(config, evaluation=evaluation, **{name: getattr(default, name) for name in server})


def agreed(config: Config) -> str:
    """The settings that a server and its sites must have in common, as YAML.

    Whatever decides what a client's training and scoring give, but where its data and model lie, which
    clients have rates of their own, and how it is computed.
    """
    default, client = Config(), ClientConfig()
    own = client_side(config)
    own = replace(
        own,
        data=default.data,
        accelerator=default.accelerator,
        participation=default.participation,
        server=default.server,
        rounds=config.rounds if config.client.rates.needs_rounds else default.rounds,
        model=replace(own.model, path=default.model.path),
        client=replace(
            own.client,
            objective=client.objective,  # work names it
            per_client=client.per_client,
            **{name: getattr(client, name) for name in _HOW if name != "guard"},
        ),
    )
    return own.to_yaml()


def shareable(config: Config) -> tuple[Config, bool]:
    """Runs that are equal in this can train on one executor.

    Private runs share an executor only where they are one method: noise is a method's own. In bf16 that is
    not only the client's side: what changes the frozen weights needs them in float32.
    """
    own = replace(client_side(config), executor=config.executor)
    if private(config):
        own = replace(own, name=config.name, aggregator=config.aggregator)
    return own, config.precision != "32-true" and shifts(config)
