from fedpl.randomness import derive_seed


def test_every_part_of_the_key_matters() -> None:
    streams = {
        derive_seed(seed, stage, round, client)
        for seed in range(3)
        for stage in ("split", "order")
        for round in range(3)
        for client in ("", "a", "b")
    }
    assert len(streams) == 3 * 2 * 3 * 3
    assert all(0 <= stream < 2**63 for stream in streams)


def test_the_streams_of_published_results_never_change() -> None:
    assert derive_seed(0, "order", 1, "united-a") == 8667874390947950570


def test_neighbouring_fields_do_not_run_together() -> None:
    assert derive_seed(1, "a", 11, "b") != derive_seed(11, "a", 1, "b")
    assert derive_seed(0, "ab", 0, "c") != derive_seed(0, "a", 0, "bc")
