"""Contract under test: draws depend on row, key, position and seed alone, by exact integers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layercast import ops
from layercast.errors import DtypeError, ShapeError, ValueRangeError
from layercast.kernels import cpu, reference
from layercast.kernels.cpu.isa import csrc
from layercast.kernels.reference.sampling import philox
from layercast.testing import assert_bitwise_equal, poisoned_empty
from layercast.testing.strategies import draw_values, seeds

# Known answers of the Random123 library, philox4x32 with 10 rounds: counter, key, words.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    (
        [0xFFFFFFFF] * 4,
        [0xFFFFFFFF] * 2,
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
    ),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_has_the_known_answers(counter, key, words):
    assert csrc.philox(counter, key) == words
    assert philox(counter, key) == words


def keys_of(count, seed=0):
    return torch.randint(
        -(2**63), 2**63 - 1, (count,), generator=torch.Generator().manual_seed(seed)
    )


def sample(logits, **settings):
    B = logits.shape[0]
    defaults = {
        "temperature": 1.0,
        "seed": 7,
        "sequence_keys": keys_of(B),
        "positions": torch.arange(B),
    }
    return ops.sample(logits, **{**defaults, **settings})


@given(
    B=st.integers(0, 5),
    V=st.sampled_from([1, 2, 17, 100, 513]),
    seed=seeds(),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 5.0]),
    top_k=st.sampled_from([None, 1, 3, 50, 10**6]),
    top_p=st.sampled_from([None, 1e-9, 0.3, 0.9, 1.0]),
    min_p=st.sampled_from([None, 0.0, 1e-6, 0.05, 1.0]),
    kind=st.sampled_from(["magnitudes", "ties"]),
)
def test_sample_equals_the_reference(B, V, seed, temperature, top_k, top_p, min_p, kind):
    logits = draw_values(kind, seed, (B, V)).clamp(-30, 30)
    keys, positions = keys_of(B, seed), torch.arange(B) + seed
    with poisoned_empty():
        actual = ops.sample(
            logits,
            temperature=temperature,
            seed=seed,
            sequence_keys=keys,
            positions=positions,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
        )
    top_p_units = 2**32 if top_p is None else max(1, round(top_p * 2**32))
    min_p_units = round((min_p or 0.0) * 2**32)
    expected = reference.sample(
        logits, temperature, seed, keys, positions, min(top_k or V, V), top_p_units, min_p_units
    )
    assert_bitwise_equal(actual, expected)


def assert_draws_ignore_the_batch(draw, logits, keys, positions):
    whole = draw(logits, keys, positions)
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(1))
    assert_bitwise_equal(draw(logits[order], keys[order], positions[order]), whole[order])
    for i in range(len(keys)):
        one = slice(i, i + 1)
        assert_bitwise_equal(draw(logits[one], keys[one], positions[one]), whole[one])


def test_a_draw_does_not_depend_on_the_batch():
    logits = draw_values("magnitudes", 3, (20, 300)).clamp(-3, 3)

    def draw(x, keys, positions):
        return sample(x, sequence_keys=keys, positions=positions)

    assert_draws_ignore_the_batch(draw, logits, keys_of(20), torch.arange(20))


def test_a_stateful_generator_is_caught():
    """The control: torch's generator gives each row what the rows before it left."""
    logits = draw_values("magnitudes", 3, (20, 300)).clamp(-3, 3)

    def stateful(x, keys, positions):
        return torch.multinomial(
            x.softmax(-1), 1, generator=torch.Generator().manual_seed(0)
        ).squeeze(-1)

    with pytest.raises(AssertionError, match="elements differ"):
        assert_draws_ignore_the_batch(stateful, logits, keys_of(20), torch.arange(20))


def test_seed_key_and_position_each_change_the_draws():
    logits = torch.zeros(200, 1000)
    base = sample(logits)
    for changed in (
        sample(logits, seed=8),
        sample(logits, sequence_keys=keys_of(200, 1)),
        sample(logits, positions=torch.arange(200) + 1),
    ):
        assert (changed != base).sum() > 150


def test_draws_follow_the_distribution():
    """Frequencies of 20,000 draws stay within five standard deviations."""
    p = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625])
    count = 20000
    tokens = sample(p.log().expand(count, 5), positions=torch.arange(count))
    found = torch.bincount(tokens, minlength=5) / count
    assert ((found - p).abs() <= 5 * (p * (1 - p) / count).sqrt()).all()


def test_top_k_and_top_p_keep_what_they_say():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().expand(3000, 4)
    assert set(sample(logits, top_k=2).tolist()) == {0, 1}
    # Before the third token lies 0.7 of the weight, before the second 0.4.
    assert set(sample(logits, top_p=0.6).tolist()) == {0, 1}
    assert set(sample(logits, top_p=0.75).tolist()) == {0, 1, 2}
    assert set(sample(logits, top_p=1e-6).tolist()) == {0}
    # Over what top-k left, 0.4 / 0.7 of the weight lies before the second token.
    assert set(sample(logits, top_k=2, top_p=0.5).tolist()) == {0}
    assert set(sample(torch.zeros(500, 4), top_k=1).tolist()) == {0}


def test_min_p_keeps_what_weighs_a_share_of_the_most_likely():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().expand(3000, 4)
    # Shares of the largest: 1, 0.75, 0.5, 0.25.
    assert set(sample(logits, min_p=0.76).tolist()) == {0}
    assert set(sample(logits, min_p=0.6).tolist()) == {0, 1}
    assert set(sample(logits, min_p=0.3).tolist()) == {0, 1, 2}
    assert set(sample(logits, min_p=0.0).tolist()) == {0, 1, 2, 3}
    assert set(sample(logits, min_p=1.0).tolist()) == {0}
    # Of what top-p left: 0.4 and 0.3 lie before the third token.
    assert set(sample(logits, min_p=0.3, top_p=0.6).tolist()) == {0, 1}


@pytest.mark.parametrize("settings", [{"top_p": 0.9}, {"top_k": 20, "top_p": 0.9}, {"min_p": 0.05}])
def test_what_is_kept_is_what_transformers_keeps(settings):
    """Where no probability lies within rounding of a threshold, both keep the same tokens."""
    from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers = {"top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper, "min_p": MinPLogitsWarper}
    logits = torch.linspace(0, 6, 60)[
        torch.randperm(60, generator=torch.Generator().manual_seed(2))
    ]
    kept = logits[None]
    for name, value in settings.items():
        kept = warpers[name](value)(None, kept)
    expected = set(torch.isfinite(kept[0]).nonzero().flatten().tolist())
    assert 1 < len(expected) < 60
    assert set(sample(logits.expand(20000, 60), **settings).tolist()) == expected


def test_minus_infinity_is_never_drawn():
    logits = torch.full((2000, 5), -math.inf)
    logits[:, 3] = 0.0
    logits[:, 1] = -1.0
    assert set(sample(logits).tolist()) == {1, 3}


def test_low_temperature_is_greedy():
    logits = torch.stack([torch.arange(100.0).roll(i) for i in range(50)])
    assert_bitwise_equal(sample(logits, temperature=1e-5), ops.argmax(logits))


def test_the_sequence_key_is_the_digest_of_ids_and_index():
    # BLAKE2b-64 of three little-endian int64: 1, 2 and the sample's index.
    import hashlib

    data = b"".join(i.to_bytes(8, "little") for i in (1, 2, 0))
    digest = hashlib.blake2b(data, digest_size=8).digest()
    assert ops.sequence_key([1, 2]) == int.from_bytes(digest, "little", signed=True)
    assert len({ops.sequence_key([1, 2], i) for i in range(100)}) == 100


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_without_a_distribution_is_named(bad):
    logits = torch.zeros(3, 4)
    logits[1, 2] = bad
    with pytest.raises(ValueRangeError, match="got row 1 without a distribution"):
        sample(logits)
    with pytest.raises(ValueRangeError, match="got row 0"):
        sample(torch.full((1, 4), -math.inf))


def test_wrong_arguments_are_named():
    logits = torch.zeros(2, 4)
    for settings, error, words in (
        ({"temperature": 0.0}, ValueRangeError, r"sample: `temperature` must lie"),
        ({"seed": -1}, ValueRangeError, r"sample: `seed` must lie"),
        ({"top_k": 0}, ValueRangeError, r"sample: `top_k` must be at least 1"),
        ({"top_p": 0.0}, ValueRangeError, r"sample: `top_p` must lie"),
        ({"min_p": 1.5}, ValueRangeError, r"sample: `min_p` must lie"),
        ({"positions": torch.arange(3)}, ShapeError, r"sample: `positions` must have shape"),
        ({"sequence_keys": torch.zeros(2)}, DtypeError, r"sample: `sequence_keys` must be"),
    ):
        with pytest.raises(error, match=words):
            sample(logits, **settings)
    with pytest.raises(ShapeError, match="at least one token"):
        sample(torch.zeros(2, 0))


@given(
    rows=st.integers(0, 4),
    n=st.sampled_from([1, 2, 30, 300]),
    share=st.floats(0, 1),
    seed=seeds(),
    kind=st.sampled_from(["magnitudes", "bits", "ties"]),
)
def test_topk_equals_the_reference(rows, n, share, seed, kind):
    x, k = draw_values(kind, seed, (rows, n)), int(share * n)
    with poisoned_empty():
        actual = ops.topk(x, k)
    for a, b in zip(actual, reference.topk(x, k), strict=True):
        assert_bitwise_equal(a, b)


def test_topk_orders_equals_by_index_and_nan_first():
    x = torch.tensor([[1.0, 3.0, -0.0, 3.0, 0.0, math.nan, -math.inf]])
    values, indices = ops.topk(x, 7)
    assert indices.tolist() == [[5, 1, 3, 0, 2, 4, 6]]
    assert_bitwise_equal(values, x[:, indices[0]])
    assert ops.topk(x, 0)[0].shape == (1, 0)
    assert_bitwise_equal(cpu.topk(x, 1)[1][:, 0], ops.argmax(x))


def test_topk_names_wrong_arguments():
    with pytest.raises(ValueRangeError, match=r"topk: `k` must lie within 0..3"):
        ops.topk(torch.zeros(2, 3), 4)
