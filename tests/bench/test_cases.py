"""Contract under test: every case of the registry can be prepared, checked and run."""

import dataclasses

import pytest
import torch
from fakes import quiet_workspace

from layercast.bench.case import Variant
from layercast.bench.checks import require_bits
from layercast.bench.inputs import spread
from layercast.bench.registry import CASES, OPERATIONS, prepare, select
from layercast.errors import ValueRangeError

_SMALL_SIZES = {"N": 40, "K": 72, "Tk": 130, "n": 200}


def _small(case):
    sizes = tuple((name, min(size, _SMALL_SIZES.get(name, size))) for name, size in case.sizes)
    if case.operation == "attention" and case.size("Tq") > 1:
        sizes = tuple((n, 130 if n in ("Tq", "Tk") else size) for n, size in sizes)
        return dataclasses.replace(case, sizes=sizes, rows=130)
    return dataclasses.replace(case, sizes=sizes, rows=min(case.rows, 20))


SMALL = [_small(case) for case in CASES if case.operation not in ("decode", "prefill", "memory")]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.label)
def test_a_case_is_right_by_definition_and_has_a_turn_for_each_variant(case):
    with torch.inference_mode():
        prepared = prepare(case, quiet_workspace())
        found = prepared.check()
        assert set(prepared.turns) == set(case.variants)
        assert all(turn() >= 0 for turn in prepared.turns.values())
    assert found["values_equal_to_definition"] > 0
    if case.operation != "argmax":
        errors = found["relative_error"]
        assert errors[Variant.LAYERCAST] < 1e-5
        if Variant.STOCK_BF16 in errors:
            # The control: the measure of error tells 8 bits from 24.
            assert errors[Variant.STOCK_BF16] > 100 * errors[Variant.LAYERCAST]


def test_labels_tell_cases_apart():
    assert len({case.label for case in CASES}) == len(CASES)


def test_every_case_compares_layercast_with_something():
    for case in CASES:
        assert case.variants[0] is Variant.LAYERCAST
        assert len(case.variants) > 1
        assert case.operation in OPERATIONS


def test_the_short_set_is_a_part_and_full_is_all():
    assert select(full=True) == CASES
    short = select()
    assert 0 < len(short) < len(CASES)
    assert set(short) < set(CASES)


def test_only_and_rows_choose_among_all_cases():
    chosen = select(only=["linear"], rows=[4])
    assert chosen
    assert {(case.operation, case.rows) for case in chosen} == {("linear", 4)}


@pytest.mark.parametrize("asked", [{"only": ["linaer"]}, {"only": ["linear"], "rows": [3]}])
def test_what_has_no_case_is_refused_by_naming_those_that_have(asked):
    with pytest.raises(ValueRangeError, match=r"Choose among .*(linear|512)"):
        select(**asked)


@pytest.mark.parametrize("length", [1, 2, 47, 48, 49, 97, 4096])
def test_what_is_compared_includes_both_ends_and_no_row_twice(length):
    chosen = spread(length, 48).tolist()
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(length, 48)
    assert (chosen[0], chosen[-1]) == (0, length - 1)


def test_rotated_copies_are_equal_to_the_bit_and_lie_apart():
    weight = torch.randn(64, 64)
    rotation = quiet_workspace().rotate(weight)
    copies = [rotation.next()[0] for _ in range(rotation.copies)]
    assert rotation.total_bytes >= 2**16
    assert len({copy.data_ptr() for copy in copies}) == rotation.copies == 4
    for copy in copies:
        require_bits("copy", copy, weight)
    # Then the first again: the one that was read longest ago.
    assert rotation.next()[0].data_ptr() == copies[0].data_ptr()
