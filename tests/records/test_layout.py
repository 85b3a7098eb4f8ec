from itertools import pairwise

import pytest

from fedpl.records.layout import AdapterLayout, block_of, kind_of

SHAPES = {
    "head.weight": (2, 6),
    "head.bias": (2,),
    "encoder.layer.0.query.lora_A.weight": (2, 6),
    "encoder.layer.1.query.lora_A.weight": (2, 6),
    "encoder.layer.0.query.lora_B.weight": (6, 2),
    "encoder.layer.1.query.lora_B.weight": (6, 2),
    "encoder.pooler.lora_A.weight": (2, 6),
}


def test_blocks_are_contiguous_and_the_head_comes_last() -> None:
    layout = AdapterLayout.of(SHAPES)
    assert layout.blocks == ("encoder.layer.0", "encoder.layer.1", "encoder.pooler", "head")
    assert layout.boundaries("block") == ((0, 24), (24, 48), (48, 60), (60, 74))
    assert layout.boundaries("model") == ((0, 74),)
    assert layout.size == 74


@pytest.mark.parametrize("granularity", ["model", "block", "tensor"])
def test_boundaries_cover_every_column_once(granularity: str) -> None:
    layout = AdapterLayout.of(SHAPES)
    edges = layout.boundaries(granularity)
    assert edges[0][0] == 0
    assert edges[-1][1] == layout.size
    assert all(before[1] == after[0] for before, after in pairwise(edges))
    assert len(layout.labels(granularity)) == len(edges)


def test_entries_do_not_depend_on_the_order_of_naming_within_the_vector() -> None:
    layout = AdapterLayout.of(SHAPES)
    assert sum(entry.size for entry in layout.entries) == layout.size
    assert [entry.start for entry in layout.entries] == sorted(entry.start for entry in layout.entries)


def test_layouts_are_hashable_and_equal_by_value() -> None:
    assert len({AdapterLayout.of(SHAPES), AdapterLayout.of(dict(SHAPES))}) == 1


@pytest.mark.parametrize(
    ("name", "block", "kind"),
    [
        ("model.layers.11.self_attn.q_proj.lora_A.weight", "model.layers.11", "lora_A"),
        ("h.3.attn.c_attn.lora_B.weight", "h.3", "lora_B"),
        ("encoder.embedding.lora_A.weight", "encoder.embedding", "lora_A"),
        ("head.bias", "head", "head"),
    ],
)
def test_names_of_several_models(name: str, block: str, kind: str) -> None:
    assert block_of(name) == block
    assert kind_of(name) == kind
