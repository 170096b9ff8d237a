"""Contract under test: rotary tables are the nearest floats; a position depends on itself alone."""

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layercast import ops
from layercast.errors import DtypeError, ShapeError, ValueRangeError
from layercast.kernels import cpu, reference
from layercast.testing import assert_bitwise_equal, bits, poisoned_empty
from layercast.testing.strategies import draw_values, seeds

BASES = [1.0, 2.0, 10000.0, 500000.0, 1e6, 3.7e8]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("head_dim", [2, 6, 64, 80, 128, 256])
def test_frequencies_equal_the_reference_and_are_within_one_ulp(base, head_dim):
    actual = cpu.frequencies(base, head_dim)
    assert_bitwise_equal(actual, reference.frequencies(base, head_dim))
    with mpmath.workprec(200):
        for i, value in enumerate(actual.tolist()):
            exact = mpmath.mpf(base) ** (mpmath.mpf(-2 * i) / head_dim)
            ulp = mpmath.mpf(2) ** (mpmath.floor(mpmath.log(exact, 2)) - 52)
            assert abs(value - exact) <= ulp


@given(seed=seeds(), span=st.sampled_from([2**6, 2**15, 2**20, 2**31]), base=st.sampled_from(BASES))
def test_table_equals_the_reference(seed, span, base):
    positions = torch.randint(
        -span + 1, span, (2, 9), generator=torch.Generator().manual_seed(seed)
    )
    inv_freq = cpu.frequencies(base, 16)
    with poisoned_empty():
        actual = ops.rotary_table(positions, head_dim=16, base=base, attention_scaling=1.25)
    for table, expected in zip(
        actual, reference.rotary_table(positions, inv_freq, 1.25), strict=True
    ):
        assert_bitwise_equal(table, expected)


def test_table_is_the_nearest_float_up_to_the_largest_position():
    generator = torch.Generator().manual_seed(0)
    spans = [2**k for k in (4, 10, 15, 20, 25, 31)]
    positions = torch.cat([torch.randint(0, span, (20,), generator=generator) for span in spans])
    inv_freq = cpu.frequencies(10000.0, 8)
    cos, sin = ops.rotary_table(positions[None], head_dim=8, base=10000.0)
    with mpmath.workprec(200):
        for row, position in enumerate(positions.tolist()):
            for i, frequency in enumerate(inv_freq.tolist()):
                angle = mpmath.mpf(position) * mpmath.mpf(frequency)
                for table, exact in ((cos, mpmath.cos(angle)), (sin, mpmath.sin(angle))):
                    nearest = torch.tensor(float(exact), dtype=torch.float64).float()
                    assert table[0, row, i].item() == nearest.item()
                    assert table[0, row, i + 4].item() == nearest.item()


def test_stock_float32_angles_are_off_where_ours_are_not():
    """The control of the test above: angles in float32 lose the position."""
    position = torch.tensor([[32000]])
    ours, _ = ops.rotary_table(position, head_dim=128, base=10000.0)
    frequencies = 1.0 / 10000.0 ** (torch.arange(0, 128, 2).float() / 128)
    stock = torch.cos(position[..., None].float() * frequencies)
    exact = torch.cos(position[..., None].double() * cpu.frequencies(10000.0, 128))
    assert (ours[..., :64] - exact).abs().max() < 2.0**-24
    assert (stock - exact).abs().max() > 2.0**-14


def test_a_position_does_not_see_its_neighbours():
    positions = torch.arange(100)[None]
    cos, sin = ops.rotary_table(positions, head_dim=32, base=10000.0)
    for i in (0, 1, 63, 99):
        c, s = ops.rotary_table(positions[:, i : i + 1], head_dim=32, base=10000.0)
        assert_bitwise_equal(c, cos[:, i : i + 1])
        assert_bitwise_equal(s, sin[:, i : i + 1])


@given(
    T=st.integers(0, 9),
    D=st.sampled_from([2, 6, 16, 32, 34, 64, 128]),
    rotated=st.sampled_from([1.0, 0.5]),
    seed=seeds(),
    kind=st.sampled_from(["magnitudes", "bits"]),
)
def test_rotary_equals_the_reference(T, D, rotated, seed, kind):
    R = max(2, int(D * rotated) // 2 * 2)
    q, k = draw_values(kind, seed, (2, 3, T, D)), draw_values(kind, seed + 1, (2, 1, T, D))
    cos, sin = draw_values(kind, seed + 2, (2, T, R)), draw_values(kind, seed + 3, (2, T, R))
    with poisoned_empty():
        actual = ops.rotary(q, k, cos, sin)
    for y, expected in zip(actual, reference.rotary(q, k, cos, sin), strict=True):
        assert_bitwise_equal(y, expected)


def test_rotary_reads_strided_heads():
    q = draw_values("magnitudes", 1, (2, 5, 4, 32)).transpose(1, 2)
    k = draw_values("magnitudes", 2, (2, 5, 64))[..., 16:48].unsqueeze(1)
    cos, sin = ops.rotary_table(torch.arange(5)[None].expand(2, 5), head_dim=32, base=1e4)
    strided = ops.rotary(q, k, cos, sin)
    for a, b in zip(strided, ops.rotary(q.contiguous(), k.contiguous(), cos, sin), strict=True):
        assert_bitwise_equal(a, b)


def test_a_fused_rotation_would_have_other_bits():
    """The control: fusing the multiply and the add, as a contracting compiler does, is visible."""
    q = draw_values("magnitudes", 1, (1, 1, 50, 32))
    cos, sin = ops.rotary_table(torch.arange(50)[None], head_dim=32, base=1e4)
    ours, _ = ops.rotary(q, q, cos, sin)
    low, high = q[..., :16].double(), q[..., 16:].double()
    product = (high * sin[:, None, :, :16].double()).float().double()
    fused = (low * cos[:, None, :, :16].double() - product).float()
    assert (bits(fused) != bits(ours[..., :16])).any()


def test_wrong_arguments_are_named():
    positions = torch.arange(4)[None]
    with pytest.raises(ShapeError, match="rotary_table: `head_dim` must be even"):
        ops.rotary_table(positions, head_dim=3, base=1e4)
    with pytest.raises(ValueRangeError, match="rotary_table: `base` must be at least 1"):
        ops.rotary_table(positions, head_dim=4, base=0.5)
    with pytest.raises(ValueRangeError, match="rotary_table: `position_ids`"):
        ops.rotary_table(positions + 2**31, head_dim=4, base=1e4)
    with pytest.raises(DtypeError, match=r"rotary_table: `inv_freq` must be torch.float64"):
        ops.rotary_table(positions, head_dim=4, base=1e4, inv_freq=torch.ones(2))
    with pytest.raises(ShapeError, match="rotary_table: `inv_freq` must have shape"):
        ops.rotary_table(positions, head_dim=4, base=1e4, inv_freq=torch.ones(3).double())
    q, table = torch.ones(1, 2, 4, 8), torch.ones(1, 4, 8)
    with pytest.raises(ShapeError, match="rotary: `cos` and `sin` must have shape"):
        ops.rotary(q, q, table[:, :3], table)
    with pytest.raises(ShapeError, match="rotary: `k` must agree"):
        ops.rotary(q, q[..., :4], table, table)
