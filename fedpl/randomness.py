"""Every random stream of a run is a pure function of (seed, stage, round, client)."""

import hashlib


def derive_seed(seed: int, stage: str, round: int = 0, client: str = "") -> int:
    """Seed of one random stream, in [0, 2**63).

    A hash, not a counter: the order in which clients are processed, how many take part and where a run was
    interrupted cannot change anybody's stream.

    Args:
        seed: The run's seed.
        stage: What the stream is for, for example ``"split"``, ``"init"`` or ``"train"``.
        round: Round number, 0 for streams drawn once per run.
        client: Client id, empty for streams that all clients share.
    """
    key = f"{seed}\x1f{stage}\x1f{round}\x1f{client}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1
