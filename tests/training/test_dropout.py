"""Masks are fair coins that depend on the stream and the place alone."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedpl.training.dropout import StreamDropout, keep_mask, row_keys
from tests.waits import Operations


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_dropped(p: float) -> None:
    mask = keep_mask(row_keys(5, 0, 50), 1, (50, 40, 100), p).double()
    tolerance = 5 * (p * (1 - p) / mask.numel()) ** 0.5
    assert float(mask.mean()) == pytest.approx(1 - p, abs=tolerance)
    for axes in ((0, 1), (0, 2), (1, 2)):
        worst = (mask.mean(axes) - (1 - p)).abs().max()
        assert worst < 6 * (p * (1 - p) / (mask.numel() / mask.mean(axes).numel())) ** 0.5


def test_masks_are_uncorrelated() -> None:
    base = keep_mask(row_keys(5, 0, 20), 1, (20, 30, 64), 0.5).double() - 0.5
    others = [
        keep_mask(row_keys(6, 0, 20), 1, (20, 30, 64), 0.5),
        keep_mask(row_keys(5, 1, 20), 1, (20, 30, 64), 0.5),
        keep_mask(row_keys(5, 0, 20), 2, (20, 30, 64), 0.5),
        *(base.roll(1, axis) + 0.5 for axis in range(3)),
    ]
    for other in others:
        assert abs(float((base * (other.double() - 0.5)).mean())) * 4 < 6 / base.numel() ** 0.5


def test_keys_do_not_repeat() -> None:
    keys = [row_keys(stream, step, 16) for stream in (0, 1, 2**62, 2**63 - 1) for step in range(20)]
    assert len(torch.cat(keys).unique()) == 4 * 20 * 16


def test_mask_does_not_depend_on_padding_or_company() -> None:
    keys = row_keys(5, 0, 6)
    whole = keep_mask(keys, 3, (6, 4, 12, 12), 0.3)
    part = keep_mask(keys[[4, 1]], 3, (2, 4, 9, 9), 0.3)
    assert part.equal(whole[[4, 1], :, :9, :9])


def test_masks_stay_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of earlier versions can be repeated; how many rows are hashed at a time changes nothing."""
    bits = "011001111010101101010111001110010010001110000011010101010110101111001010"
    for cached in (1, 50, 1 << 16):
        monkeypatch.setattr("fedpl.training.dropout._CACHED", cached)
        mask = keep_mask(row_keys(7, 2, 3), 5, (3, 4, 6), 0.5)
        assert "".join(map(str, mask.int().flatten().tolist())) == bits


def plain_mask(keys: torch.Tensor, site: int, shape: tuple[int, ...], p: float) -> np.ndarray:
    """The mask as it is defined, by unsigned numbers: MurmurHash3's finaliser of row ^ hash of the place."""

    def finalised(h: np.ndarray) -> np.ndarray:
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            h = (h ^ (h >> shift)) * np.uint32(factor)
        return h ^ (h >> 16)

    place = np.array(site * 0x61C88647 & 0x7FFFFFFF, np.uint32)
    for length, spread in zip(shape[1:], (0x2C1B3C6D, 0x297A2D39, 0x1B56C4E9, 0x3C6EF35F), strict=False):
        place = place[..., None] + np.arange(length, dtype=np.uint32) * np.uint32(spread)
    rows = keys.numpy().view(np.uint32).reshape(-1, *[1] * (len(shape) - 1))
    return finalised(rows ^ finalised(place)).view(np.int32) >= round(p * 2**32) - 2**31


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.999, 1e-9])
def test_masks_are_the_plain_hash(p: float) -> None:
    """Of 1.6 million numbers some 24 have the upper half of the limit: there the lower one decides."""
    keys, shape = row_keys(11, 3, 20), (20, 4, 100, 200)
    assert np.array_equal(keep_mask(keys, 7, shape, p).numpy(), plain_mask(keys, 7, shape, p))


def test_few_passes_over_the_numbers() -> None:
    keys, shape = row_keys(11, 3, 4), (4, 200)
    with Operations() as some:
        keep_mask(keys, 7, shape, 0.1)
    with Operations() as none:
        keep_mask(keys[:0], 7, (0, 200), 0.1)
    assert some.seen.total() - none.seen.total() <= 11, "nine over all numbers, two slices"


def test_replaces_every_dropout_of_a_pass() -> None:
    x = torch.ones(3, 5, 8)
    module = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5)).train()
    keys = row_keys(1, 0, 3)
    with StreamDropout(keys):
        first = module(x)
    with StreamDropout(keys):
        again = module(x)
    expected = 4.0 * keep_mask(keys, 1, x.shape, 0.5) * keep_mask(keys, 2, x.shape, 0.5)
    assert first.equal(expected)
    assert again.equal(expected)
    with StreamDropout(keys):
        assert module.eval()(x).equal(x)


@pytest.mark.parametrize("kind", ["bool", "float", "causal", "grouped"])
def test_attention(kind: str) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, heads, 6, 4) for heads in ((4, 2, 2) if kind == "grouped" else (4, 4, 4)))
    allowed = (torch.arange(6) < 4).view(1, 1, 1, 6).expand(3, 1, 6, 6)
    masks = {"bool": allowed, "float": torch.zeros(3, 1, 6, 6).masked_fill(~allowed, -1e9)}
    given = {"attn_mask": masks.get(kind), "is_causal": kind == "causal", "enable_gqa": kind == "grouped"}
    keys = row_keys(1, 0, 3)
    with StreamDropout(keys):
        nothing_dropped = StreamDropout(keys)._attention(q, k, v, dropout_p=0.0, **given)
        dropped = F.scaled_dot_product_attention(q, k, v, dropout_p=0.4, **given)
    torch.testing.assert_close(nothing_dropped, F.scaled_dot_product_attention(q, k, v, **given))
    assert not torch.allclose(dropped, nothing_dropped)


def test_resume_continues_where_it_was() -> None:
    x, keys = torch.ones(2, 5, 8), row_keys(1, 0, 2)
    with StreamDropout(keys) as streams:
        F.dropout(x, 0.5)
        copy = streams.resume()
        second = F.dropout(x, 0.5)
    with copy:
        assert F.dropout(x, 0.5).equal(second)
