"""Contract under test: a sequence's log-probabilities are the same bits on 1, 2, 4 and 8 ranks.

For every tested architecture of which transformers keeps a plan; the others are refused. See
`matrix/world.py` for the processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forward_variants import SEQUENCES
from matrix.decodings import decodings
from matrix.process import digest, stock_subject
from matrix.subject import Subject
from matrix.world import DECODE_IN_EVERY_WAY, GENERATE_EVERYWHERE
from tiny_models import CONFIGS, save_checkpoint

import layercast
from layercast import ops

HERE = Path(__file__).parent
SIZES = (2, 4, 8)
WITHOUT_PLAN = {"gpt2"}
# Whose projections are gathered before the heads are told apart: any number of heads will do.
GATHERED = {"phi3", "olmo2"}
# Stock experts cannot be cut as small as 8 ranks cut these.
STOCK = ("llama", "qwen2", "mistral")


def divisible_heads(architecture: str) -> dict:
    """Options that give every one of 8 ranks a head of keys."""
    # Stock ranks of transformers 5.17 hold even shares of a vocabulary alone.
    even = {"vocab_size": 136} if architecture in STOCK else {}
    if architecture in GATHERED:
        return even
    if architecture in ("gemma2", "gemma3", "gpt_neox", "gpt2"):
        return {"num_attention_heads": 8, "num_key_value_heads": 8}
    return {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 16, **even}


@pytest.fixture(scope="module")
def divisible(tmp_path_factory):
    """Architecture to a checkpoint that 8 ranks can hold."""
    folder = tmp_path_factory.mktemp("divisible")
    return {name: save_checkpoint(folder / name, name, **divisible_heads(name)) for name in CONFIGS}


def run_groups(sizes, stock, checkpoints) -> dict[int, dict]:
    folders = [f"{name}={folder}" for name, folder in checkpoints.items()]
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": path}
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "matrix.world",
            ",".join(map(str, sizes)),
            ",".join(stock),
            *folders,
        ],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert process.returncode == 0, process.stderr
    results = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    return {result["size"]: result for result in results}


@pytest.fixture(scope="module")
def groups(divisible, checkpoints):
    """World size to what its ranks found, of one checkpoint with too few heads too."""
    return run_groups(SIZES, STOCK, {**divisible, "few_heads": checkpoints["llama"]})


@pytest.fixture(scope="module")
def alone(divisible):
    """Architecture to its model in this process."""
    return {name: layercast.load(folder) for name, folder in divisible.items()}


def held(groups, size) -> dict[str, list[dict]]:
    return {
        name: ranks
        for name, ranks in groups[size]["ranks"].items()
        if name not in WITHOUT_PLAN and name != "few_heads"
    }


@pytest.fixture(scope="module")
def expected(alone):
    return {name: digest(Subject(model, ops.log_softmax)) for name, model in alone.items()}


@pytest.mark.parametrize("size", SIZES)
def test_log_probabilities_are_those_of_one_process(groups, expected, size):
    found = held(groups, size)
    assert found.keys() == CONFIGS.keys() - WITHOUT_PLAN
    for name, ranks in found.items():
        assert len(ranks) == size
        assert {rank["digest"] for rank in ranks} == {expected[name]}, name


def generating(groups, size) -> dict[str, list[dict]]:
    found = {name: ranks for name, ranks in held(groups, size).items() if "tokens" in ranks[0]}
    assert found.keys() >= (CONFIGS.keys() - WITHOUT_PLAN if size == 2 else {*GENERATE_EVERYWHERE})
    return found


@pytest.mark.parametrize("size", SIZES)
def test_generation_in_a_padded_batch_changes_nothing_on_any_rank(groups, size):
    for name, ranks in generating(groups, size).items():
        for rank in ranks:
            assert rank["generation"]["pairs"] > 0
            assert rank["generation"]["differing"] == 0, name


@pytest.mark.parametrize("size", SIZES)
def test_generated_tokens_are_those_of_one_process(groups, alone, size):
    for name, ranks in generating(groups, size).items():
        tokens = alone[name].generate(SEQUENCES[2][None, :9], max_new_tokens=6, do_sample=False)
        assert all(rank["tokens"] == tokens[0].tolist() for rank in ranks), name


@pytest.mark.parametrize("name", DECODE_IN_EVERY_WAY)
def test_every_way_of_decoding_gives_the_answers_of_one_process(groups, alone, name):
    expected = decodings(alone[name])
    assert len({*expected.values()}) == len(expected)
    for rank in groups[2]["ranks"][name]:
        assert rank["decodings"] == expected
        assert rank["continuous_batching"]["pairs"] > 0
        assert rank["continuous_batching"]["differing"] == 0


@pytest.mark.parametrize("size", SIZES)
def test_each_rank_holds_its_share_in_storage_types(groups, alone, size):
    for name, ranks in held(groups, size).items():
        whole = dict(alone[name].named_parameters())
        # GPT-NeoX's plan leaves its embedding whole.
        kept = sum(p.numel() for n, p in whole.items() if "embed_in" in n)
        largest = max(rank["elements"] for rank in ranks) - kept
        # Norms, routers and biases that are added last are whole on every rank.
        shared = sum(p.numel() for p in whole.values()) - kept
        assert largest < 1.25 / size * shared, name
        assert ranks[0]["dtypes"] == sorted({str(p.dtype) for p in whole.values()})


@pytest.mark.parametrize("size", SIZES)
def test_stock_float32_gives_other_bits_on_more_ranks(groups, divisible, size):
    # The control: the same processes, the same comparison, stock arithmetic.
    one = {name: digest(stock_subject(divisible[name])) for name in STOCK}
    found = groups[size]["stock"]
    assert found.keys() == one.keys()
    assert any(found[name] != one[name] for name in STOCK)


@pytest.mark.parametrize("size", [4, 8])
def test_parts_added_in_order_of_ranks_give_other_bits(groups, size):
    # The control that lies in our hands: all else as it was. Of two parts there is one order.
    for name, ranks in held(groups, size).items():
        for own, misordered in (rank["misordered"] for rank in ranks):
            assert own != misordered, name


def test_the_order_of_two_parts_does_not_matter(groups):
    for ranks in held(groups, 2).values():
        assert all(len(set(rank["misordered"])) == 1 for rank in ranks)


@pytest.mark.parametrize("size", SIZES)
def test_architectures_without_a_plan_are_refused_on_every_rank(groups, size):
    for name in WITHOUT_PLAN:
        for rank in groups[size]["ranks"][name]:
            assert rank["refused"] == "UnsupportedError"
            assert "'gpt2', which has none. Load it in one process." in rank["message"]


@pytest.mark.parametrize("size", [4, 8])
def test_heads_that_do_not_divide_are_refused_on_every_rank(groups, size):
    for rank in groups[size]["ranks"]["few_heads"]:
        assert rank["refused"] == "ValueRangeError"
        for words in (
            f"got {size} processes",
            "key_value_heads=2)",
            "Start 1 or 2 processes instead.",
        ):
            assert words in rank["message"]


def test_two_ranks_hold_two_heads_of_keys(groups, checkpoints):
    torch.set_num_threads(1)
    model = layercast.load(checkpoints["llama"])
    own = digest(Subject(model, ops.log_softmax))
    assert {rank["digest"] for rank in groups[2]["ranks"]["few_heads"]} == {own}
