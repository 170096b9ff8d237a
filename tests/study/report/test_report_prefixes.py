from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from layercast.study.report.prefixes import common_prefix, prefix_order

# Few symbols and short sequences, so that long common prefixes and prefixes of others are common.
sequences = st.lists(
    st.one_of(st.none(), st.lists(st.integers(0, 2), max_size=6)), min_size=1, max_size=9
)


def arrays(lists):
    return [None if s is None else np.array(s, np.int32) for s in lists]


def shared_by_neighbours(order, a, b):
    low, high = sorted((a, b))
    return min(order.shared[low + 1 : high + 1])


@given(sequences)
def test_neighbours_give_the_common_prefix_of_any_two(lists):
    given_arrays = arrays(lists)
    order = prefix_order(given_arrays)
    for i, a in enumerate(given_arrays):
        for j, b in enumerate(given_arrays):
            if a is None or b is None:
                continue
            if lists[i] == lists[j]:
                assert order.members[i] == order.members[j]
            else:
                pair = order.members[i], order.members[j]
                assert shared_by_neighbours(order, *pair) == common_prefix(a, b)


@given(sequences)
def test_branch_positions_are_the_common_prefixes_with_the_others(lists):
    given_arrays = arrays(lists)
    order = prefix_order(given_arrays)
    distinct = [given_arrays[index] for index in order.first]
    for place, a in enumerate(distinct):
        expected = {common_prefix(a, b) for other, b in enumerate(distinct) if other != place}
        assert order.branch_positions(place) == tuple(sorted(expected))


def test_order_by_hand():
    order = prefix_order(arrays([[5, 7, 9], None, [5, 7], [5, 7, 9], [300], [5, 7, 1, 2]]))
    # sorted: [5 7] [5 7 1 2] [5 7 9] [300]
    assert order.members == (2, -1, 0, 2, 3, 1)
    assert order.first == (2, 5, 0, 4)
    assert order.shared == (0, 2, 2, 0)
    assert order.branch_positions(0) == (0, 2)


def test_order_compares_numbers_above_a_byte_as_numbers():
    digests = [np.array([value], np.uint64) for value in (2**63, 255, 256, 2**40)]
    assert prefix_order(digests).members == (3, 0, 1, 2)


def test_nothing_is_an_order_too():
    order = prefix_order([None, None])
    assert (order.members, order.first, order.shared) == ((-1, -1), (), ())
