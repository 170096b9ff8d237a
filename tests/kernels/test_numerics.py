"""Contract under test: where reductions are cut."""

import pytest

from layercast.numerics import chunk_bounds, shard_bounds


@pytest.mark.parametrize("length", [0, 1, 5, 7, 8, 9, 63, 64, 511, 512, 896, 4864, 18944])
def test_shards_and_chunks_cover_every_term_once_in_order(length):
    terms = [
        k
        for begin, end in shard_bounds(length)
        for start, stop in chunk_bounds(begin, end)
        for k in range(start, stop)
    ]
    assert terms == list(range(length))


def test_shards_are_cut_at_eighths_rounded_down():
    # 10 * i / 8 = 0, 1.25, 2.5, 3.75, 5, 6.25, 7.5, 8.75, 10
    assert [begin for begin, _ in shard_bounds(10)] == [0, 1, 2, 3, 5, 6, 7, 8]
    # 3 * i / 8: the terms lie in the third, sixth and eighth shard.
    assert [end - begin for begin, end in shard_bounds(3)] == [0, 0, 1, 0, 0, 1, 0, 1]


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_the_cut_of_a_rank_is_the_cut_of_a_shard(ranks):
    length = 4864
    starts = {begin for begin, _ in shard_bounds(length)}
    assert {length * r // ranks for r in range(ranks)} <= starts


def test_chunks_have_64_terms_and_a_shorter_last():
    assert chunk_bounds(10, 150) == [(10, 74), (74, 138), (138, 150)]
    assert chunk_bounds(5, 5) == []
