"""The sketch against its definition in plain Python, and what it tells apart."""

import numpy as np
import pytest

from runtime.sketch import SUMS, mixed, sketch

FMIX32 = {0: 0, 1: 0x514E28B7, 2: 0x30F4C306, 0xFFFFFFFF: 0x81F16F39}  # of MurmurHash3's published code


def mix(h):
    h ^= h >> 16
    h = h * 0x85EBCA6B % 2**32
    h ^= h >> 13
    h = h * 0xC2B2AE35 % 2**32
    return h ^ h >> 16


def test_the_hash_is_murmurs():
    assert mixed(np.array(list(FMIX32), np.uint32)).tolist() == list(FMIX32.values())
    assert [mix(h) for h in FMIX32] == list(FMIX32.values())


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5, 4), (2, 60, 60)])
def test_it_is_its_definition(shape):
    values = np.random.default_rng(0).standard_normal(shape)
    sums = [0.0] * SUMS
    for i, value in enumerate(values.reshape(-1).tolist()):
        sums[mix(i) % 64] += -value if mix(i) >> 6 & 1 else value
    np.testing.assert_allclose(sketch(values), sums, rtol=1e-12, atol=1e-12)


def test_its_norm_is_that_of_the_values():
    random = np.random.default_rng(0)
    ratios = [np.linalg.norm(sketch(x)) / np.linalg.norm(x) for x in random.standard_normal((200, 5000))]
    assert abs(np.mean(ratios) - 1) < 0.03
    assert np.std(ratios) < 0.12


@pytest.mark.parametrize(
    "change",
    [lambda x: x.transpose(1, 0, 2), lambda x: x[[1, 0, *range(2, 20)]], lambda x: x[:, :, ::-1], lambda x: x * 1.01],
    ids=["transposed", "a pair swapped", "reversed", "scaled"],
)
def test_it_sees_what_leaves_sums_as_they_are(change):
    x = np.random.default_rng(0).standard_normal((20, 20, 6))
    distance = np.linalg.norm(change(x) - x)
    assert np.linalg.norm(sketch(change(x)) - sketch(x)) == pytest.approx(distance, rel=0.3)
    assert np.linalg.norm(sketch(x.copy()) - sketch(x)) == 0
