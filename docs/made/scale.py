"""What a round costs beside training, computed from what was measured where it fits."""

from docs.made.results import named, read

__all__ = ["scale"]
_MATRICES = 3  # [clients, parameters] in float32 at the server's peak, measured by benchmarks.growth
_SQUARES = (
    6  # [clients, clients] at once: products, similarities, weights, applied ones, and what is being made
)
_MACHINE = 24e9


def scale() -> str:
    """A table over clients and parameters; seconds from the largest cases that were measured."""
    product, byte = _seconds_a_product(), _seconds_a_number()
    lines = [
        "| clients | parameters | MB a client, each way | memory GB | n × n GB | disk GB a round | minutes "
        "| take |",
        "|---" * 8 + "|",
    ]
    for clients in (100, 1_000, 10_000, 100_000):
        for params in (75_000, 1_000_000, 10_000_000):
            matrix, square = 4.0 * clients * params, 4.0 * clients**2
            memory = _MATRICES * matrix + _SQUARES * square
            seconds = clients**2 * params * product + clients * params * byte
            cells = (
                f"{clients:,}",
                f"{params:,}",
                f"{4e-6 * params:,.1f}",
                f"{memory / 1e9:,.1f}",
                f"{_SQUARES * square / 1e9:,.2f}",
                f"{2 * matrix / 1e9:,.1f}",
                f"{seconds / 60:,.2f}",
                _advice(memory, _SQUARES * square, matrix),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _advice(memory: float, squares: float, matrix: float) -> str:
    if memory < 0.7 * _MACHINE:
        return "memory"
    if squares < 0.7 * _MACHINE:
        return f"`--server.storage disk` ({2 * matrix / 1e9:,.0f} GB of it)"
    return f"a machine with {squares / 1e9:,.0f} GB, or fewer clients a federation"


def _seconds_a_product() -> float:
    """Of Gram and mix in float32, for each pair of clients and parameter, at the most clients measured."""
    known = {"ours highest", "ours onto base"}
    cases = [case for case in read("aggregation-cpu.json")["cases"] if case["name"] in known]
    most = max(case["n"] for case in cases)
    return sum(case["median_s"] / (case["n"] ** 2 * case["d"]) for case in cases if case["n"] == most)


def _seconds_a_number() -> float:
    """Of journal and checkpoint, for each client and parameter."""
    found = read("growth.json")
    run = found[named(found, "after")]["runs"][0]
    seconds = run["rounds"][-1]["seconds"]
    return float(seconds["journal"] + seconds["checkpoint"]) / (run["clients"] * run["params"])
