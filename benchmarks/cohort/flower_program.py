"""Flower's simulation of the same clients; runs in an environment of its own that has flwr[simulation].

Reads ``{"model", "batch", "tokens", "clients", "threads"}`` as JSON from its argument and prints one JSON
line. The base model stays in each worker between clients and rounds; the first round, in which workers start
and load it, is not counted.
"""

import json
import os
import sys
import time
from typing import Any

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ.setdefault("RAY_DEDUP_LOGS", "0")


def main() -> None:
    """Three rounds over all clients; seconds of each after the first."""
    settings = json.loads(sys.argv[1])
    arguments = tuple(settings[name] for name in ("model", "clients", "batch", "tokens"))
    import torch
    from flwr.client import Client, ClientApp, NumPyClient
    from flwr.common import Context, ndarrays_to_parameters
    from flwr.server import ServerApp, ServerAppComponents, ServerConfig
    from flwr.server.strategy import FedAvg
    from flwr.simulation import run_simulation

    from benchmarks.cohort.contestants import peft_bare, resident

    stamps: list[float] = []
    alone: list[float] = []  # the bare loop, between the rounds: the machine's speed at that time

    class One(NumPyClient):
        def __init__(self, number: int) -> None:
            self.number = number

        def fit(self, parameters: list, config: dict) -> tuple[list, int, dict]:
            own = resident(*arguments)
            tau = peft_bare(own, torch.from_numpy(parameters[0].copy()), [f"c{self.number}"])()
            return [parameters[0] + tau[0].numpy()], 1, {}

    class Watched(FedAvg):
        def configure_fit(self, *args: Any, **kwargs: Any) -> Any:
            own = resident(*arguments)
            torch.set_num_threads(settings["threads"])  # Flower has as many workers, of one thread each
            loop = peft_bare(own, torch.zeros(own.foundation.layout.size))
            begin = time.perf_counter()
            loop()
            alone.append(time.perf_counter() - begin)
            stamps.append(time.perf_counter())
            return super().configure_fit(*args, **kwargs)

        def aggregate_fit(self, *args: Any, **kwargs: Any) -> Any:
            stamps.append(time.perf_counter())
            assert not args[2], args[2]
            assert len(args[1]) == settings["clients"]
            return super().aggregate_fit(*args, **kwargs)

    def client_fn(context: Context) -> Client:
        return One(int(context.node_config["partition-id"])).to_client()

    def server_fn(context: Context) -> ServerAppComponents:
        start = resident(*arguments).foundation.initial().numpy()
        strategy = Watched(
            fraction_evaluate=0.0,
            min_fit_clients=settings["clients"],
            min_available_clients=settings["clients"],
            initial_parameters=ndarrays_to_parameters([start]),
        )
        return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=3))

    run_simulation(
        server_app=ServerApp(server_fn=server_fn),
        client_app=ClientApp(client_fn=client_fn),
        num_supernodes=settings["clients"],
        backend_config={
            "init_args": {"num_cpus": settings["threads"], "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    seconds = [end - begin for begin, end in zip(stamps[2::2], stamps[3::2], strict=True)]
    print(json.dumps({"seconds": seconds, "bare_loop_seconds": alone[1:]}), flush=True)


if __name__ == "__main__":
    main()
