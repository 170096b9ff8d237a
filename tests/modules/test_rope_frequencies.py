"""Contract under test: frequencies are those of transformers' formulas, to the last bit ours."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from layercast import ops
from layercast.errors import ShapeError, ValueRangeError
from layercast.modules import RotaryEmbedding, rope_frequencies

HEAD_DIM, BASE = 64, 500000.0
SCALINGS = {
    "linear": {"factor": 4.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 4096},
    "yarn untruncated": {
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "truncate": False,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "mscale": 1.0,
        "mscale_all_dim": 0.5,
    },
}


def stock(rope_type, options):
    rope = {"rope_type": rope_type, "rope_theta": BASE, **options}
    config = LlamaConfig(
        hidden_size=4 * HEAD_DIM, num_attention_heads=4, head_dim=HEAD_DIM,
        max_position_embeddings=1 << 17, rope_parameters=rope,
    )  # fmt: skip
    return ROPE_INIT_FUNCTIONS[rope_type](config, torch.device("cpu"))


@pytest.mark.parametrize("name", SCALINGS)
def test_scaled_frequencies_are_those_of_transformers(name):
    rope_type = name.split()[0]
    ours = getattr(rope_frequencies, rope_type)(HEAD_DIM, BASE, **SCALINGS[name])
    theirs, scaling = stock(rope_type, SCALINGS[name])
    # float32 powers: an exponent rounded to u = 2^-24, times ln(base) = 13.1, and a few roundings
    assert torch.allclose(torch.tensor(ours.inv_freq), theirs, rtol=32 * 2.0**-24, atol=0)
    assert math.isclose(ours.attention_scaling, scaling, rel_tol=2.0**-50)
    assert ours.inv_freq != rope_frequencies.plain(HEAD_DIM, BASE)


ORIGINAL, LONGER = 4096, 10000
LENGTH_DEPENDENT = {
    "dynamic": {"factor": 3.0, "max_position_embeddings": ORIGINAL},
    "longrope": {
        "factor": 8.0,
        "short_factor": [1.0 + 0.01 * i for i in range(HEAD_DIM // 2)],
        "long_factor": [1.5 + 0.25 * i for i in range(HEAD_DIM // 2)],
        "original_max_position_embeddings": ORIGINAL,
    },
}


@pytest.mark.parametrize("length", [None, 100, ORIGINAL, LONGER])
@pytest.mark.parametrize("rope_type", LENGTH_DEPENDENT)
def test_scalings_that_depend_on_a_length_are_those_of_a_sequence_that_long(rope_type, length):
    options = LENGTH_DEPENDENT[rope_type]
    ours = getattr(rope_frequencies, rope_type)(HEAD_DIM, BASE, **options, context_length=length)
    assert ours.position_limit == max(length or 0, ORIGINAL)
    rope = {"rope_type": rope_type, "rope_theta": BASE, **options}
    rope.pop("max_position_embeddings", None)
    config = LlamaConfig(
        hidden_size=4 * HEAD_DIM, num_attention_heads=4, head_dim=HEAD_DIM,
        max_position_embeddings=ORIGINAL, rope_parameters=rope,
    )  # fmt: skip
    theirs, scaling = ROPE_INIT_FUNCTIONS[rope_type](
        config, torch.device("cpu"), seq_len=ours.position_limit
    )
    frequencies = ours.inv_freq or rope_frequencies.plain(HEAD_DIM, BASE)
    assert torch.allclose(torch.tensor(frequencies), theirs, rtol=32 * 2.0**-24, atol=0)
    assert math.isclose(ours.attention_scaling, scaling, rel_tol=2.0**-50)


def test_longrope_factors_of_another_number_are_refused():
    options = {**LENGTH_DEPENDENT["longrope"], "short_factor": [1.0]}
    with pytest.raises(ShapeError, match="32 entries, got 1"):
        rope_frequencies.longrope(HEAD_DIM, BASE, **options)


def test_plain_frequencies_are_correctly_rounded():
    # Bases that make every frequency a power of two, or of ten.
    assert rope_frequencies.plain(64, 2.0**32) == tuple(2.0**-i for i in range(32))
    assert rope_frequencies.plain(16, 1e8) == tuple(float(Fraction(1, 10**i)) for i in range(8))


def test_plain_frequencies_agree_with_the_operation_to_an_ulp():
    ours = rope_frequencies.plain(HEAD_DIM, BASE)
    positions = torch.arange(0, 40000, 37)[None]
    table = ops.rotary_table(positions, head_dim=HEAD_DIM, base=BASE)
    given = ops.rotary_table(
        positions, head_dim=HEAD_DIM, base=BASE, inv_freq=torch.tensor(ours, dtype=torch.float64)
    )
    for a, b in zip(table, given, strict=True):
        # an ulp of binary64 in a frequency moves an angle below 40000 by less than 2^-37
        assert (a.double() - b.double()).abs().max() <= 2.0**-24


@pytest.mark.parametrize("name", ["default", *SCALINGS])
def test_table_is_that_of_the_stock_module_at_short_positions(name):
    rope_type, options = name.split()[0], SCALINGS.get(name, {})
    rope = {"rope_type": rope_type, "rope_theta": BASE, **options}
    config = LlamaConfig(
        hidden_size=4 * HEAD_DIM, num_attention_heads=4, head_dim=HEAD_DIM,
        max_position_embeddings=1 << 17, rope_parameters=rope,
    )  # fmt: skip
    ours = RotaryEmbedding(getattr(rope_frequencies, rope_type)(HEAD_DIM, BASE, **options))
    positions = torch.arange(256)[None]
    x = torch.zeros(1, 256, 8)
    for a, b in zip(ours(x, positions), LlamaRotaryEmbedding(config)(x, positions), strict=True):
        # the stock angle, up to 256 rad, is off by 18 u relatively (see the frequencies above)
        assert a.dtype is b.dtype is torch.float32
        assert (a - b).abs().max() <= 1.5 * 256 * 32 * 2.0**-24


def test_bad_parameters_are_refused():
    with pytest.raises(ShapeError, match="even and positive, got 7"):
        rope_frequencies.default(7, BASE)
    with pytest.raises(ValueRangeError, match="`base` must be positive"):
        rope_frequencies.default(8, 0.0)
    with pytest.raises(ValueRangeError, match="`factor` must be positive"):
        rope_frequencies.linear(8, BASE, factor=-1.0)
    with pytest.raises(ValueRangeError, match="`high_freq_factor` must exceed"):
        rope_frequencies.llama3(8, BASE, **{**SCALINGS["llama3"], "high_freq_factor": 1.0})
