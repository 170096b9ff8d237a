"""Contract under test: a gated activation is the activation, rounded, times `up`, rounded."""

import pytest
import torch
from hypothesis import given

from layercast import ops
from layercast.errors import DtypeError, ShapeError
from layercast.kernels import cpu, reference
from layercast.testing import assert_bitwise_equal, poisoned_empty
from layercast.testing.strategies import draw_values, edge_sizes, kinds, seeds

ACTIVATIONS = {
    "silu_mul": ops.silu,
    "gelu_mul": ops.gelu,
    "gelu_tanh_mul": ops.gelu_tanh,
}
WIDE = {
    "silu_mul": torch.nn.functional.silu,
    "gelu_mul": torch.nn.functional.gelu,
    "gelu_tanh_mul": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
}
EVERY = pytest.mark.parametrize("name", ACTIVATIONS)


@EVERY
@given(rows=edge_sizes(maximum=5), n=edge_sizes(maximum=130), kind=kinds(), seed=seeds())
def test_gated_forms_equal_the_reference(name, rows, n, kind, seed):
    gate, up = draw_values(kind, seed, (rows, n)), draw_values(kind, seed + 1, (rows, n))
    expected = getattr(reference, name)(gate, up)
    with poisoned_empty():
        assert_bitwise_equal(getattr(ops, name)(gate, up), expected)
        fused = torch.cat([gate, up], dim=-1)
        assert_bitwise_equal(getattr(ops, name)(fused), expected)
        assert_bitwise_equal(getattr(ops, name)(*fused.chunk(2, dim=-1)), expected)


@EVERY
def test_gated_forms_are_the_activation_and_one_product(name):
    gate, up = draw_values("magnitudes", 1, (7, 301)), draw_values("magnitudes", 2, (7, 301))
    two_steps = ACTIVATIONS[name](gate) * up
    assert_bitwise_equal(getattr(ops, name)(gate, up), two_steps)
    # The control: rounded once, from wider arithmetic, the product has other bits.
    rounded_once = (WIDE[name](gate.double()) * up.double()).float()
    with pytest.raises(AssertionError, match="elements differ"):
        assert_bitwise_equal(rounded_once, two_steps)


@EVERY
def test_halves_of_a_fused_projection_are_read_where_they_lie(name):
    fused = draw_values("magnitudes", 3, (3, 5, 64))
    gate, up = fused.chunk(2, dim=-1)
    expected = getattr(ops, name)(gate.contiguous(), up.contiguous())
    assert cpu.tensors.as_rows(gate)[0] is gate
    assert_bitwise_equal(getattr(ops, name)(gate, up), expected)
    # Rows that are not evenly spaced, a transposed tensor and a broadcast one.
    for view in (
        fused[:, :3],
        fused.transpose(0, 1),
        fused.permute(2, 1, 0),
        fused[:1].expand(4, 5, 64),
    ):
        assert_bitwise_equal(
            getattr(ops, name)(view, view), getattr(ops, name)(view.clone(), view.clone())
        )
        if view.shape[-1] == 64:
            assert_bitwise_equal(getattr(ops, name)(view), getattr(ops, name)(view.contiguous()))


@EVERY
def test_an_element_does_not_see_its_neighbours(name):
    gate, up = draw_values("magnitudes", 4, (3, 70)), draw_values("magnitudes", 5, (3, 70))
    alone = getattr(ops, name)(gate[1:2, 20:21], up[1:2, 20:21])
    for x in (gate, up):
        kept = x[1, 20].clone()
        x.fill_(float("nan"))
        x[1, 20] = kept
    assert_bitwise_equal(getattr(ops, name)(gate, up)[1:2, 20:21], alone)


@EVERY
def test_empty_shapes(name):
    function = getattr(ops, name)
    assert function(torch.ones(0, 4), torch.ones(0, 4)).shape == (0, 4)
    assert function(torch.ones(3, 0), torch.ones(3, 0)).shape == (3, 0)
    assert function(torch.ones(3, 0)).shape == (3, 0)


def test_wrong_arguments_are_named():
    with pytest.raises(ShapeError, match=r"silu_mul: `gate` must have an even last axis"):
        ops.silu_mul(torch.ones(2, 3))
    with pytest.raises(ShapeError, match=r"silu_mul: `gate` must have at least one axis"):
        ops.silu_mul(torch.ones(()), torch.ones(()))
    with pytest.raises(ShapeError, match=r"gelu_mul: `up` must have the shape of `gate`, \(2, 3\)"):
        ops.gelu_mul(torch.ones(2, 3), torch.ones(3))
    with pytest.raises(DtypeError, match=r"gelu_tanh_mul: `up` must be torch.float32"):
        ops.gelu_tanh_mul(torch.ones(2), torch.ones(2).half())
