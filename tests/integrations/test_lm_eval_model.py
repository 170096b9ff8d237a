"""Contract under test: lm-eval's results with our model are those of any batch size."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lm_eval_tasks import LIKELIHOODS, TASKS, answers, write_tasks

from layercast import load, ops, testbed
from layercast.errors import EnvironmentSetupError, UnsupportedError, ValueRangeError
from layercast.integrations.lm_eval import command
from layercast.integrations.lm_eval.likelihoods import continuation_log_probabilities, score
from layercast.integrations.lm_eval.model import LayerCastLM


@pytest.fixture(scope="module")
def tasks(tmp_path_factory, monkeypatch_module):
    folder = tmp_path_factory.mktemp("lm_eval")
    monkeypatch_module.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    return write_tasks(folder / "tasks")


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def one_by_one(tasks):
    return answers(tasks, "layercast", 1)


@pytest.mark.parametrize("batch_size", [3, 16])
def test_every_answer_has_the_bits_of_batch_size_one(tasks, one_by_one, batch_size):
    together = answers(tasks, "layercast", batch_size)
    assert set(together) == set(TASKS)
    assert together == one_by_one


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_control_likelihoods_of_the_stock_model_depend_on_the_batch(tasks, dtype):
    alone, together = (answers(tasks, "hf", size, LIKELIHOODS, dtype=dtype) for size in (1, 16))
    # Not of each task on every processor: some have kernels that happen to agree.
    assert any(alone[task] != together[task] for task in LIKELIHOODS)


def test_control_an_order_that_depends_on_the_batch_shows_in_each_task(
    tasks, one_by_one, monkeypatch
):
    kernel = ops.linear

    def order_by_batch(x, weight, bias=None):
        if x.shape[0] == 1:
            return kernel(x, weight, bias)
        return kernel(x.flip(-1), weight.flip(-1), bias)  # k descending

    monkeypatch.setattr(ops, "linear", order_by_batch)
    together = answers(tasks, "layercast", 16, LIKELIHOODS)
    assert all(one_by_one[task] != together[task] for task in LIKELIHOODS)


def test_likelihoods_are_those_of_the_stock_model_up_to_rounding(tasks, one_by_one):
    stock = answers(tasks, "hf", 16, (*LIKELIHOODS, "own_generate"), dtype="float32")
    for task in LIKELIHOODS:
        ours, theirs = (_floats(found[task]) for found in (one_by_one, stock))
        assert len(ours) == len(theirs) > 0
        # A sum of at most 700 float32 log-probabilities of at most 20, each off by some ulps.
        assert all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(ours, theirs, strict=True))
    greedy = [sample[0][0] for sample in one_by_one["own_generate"]]
    assert greedy == [sample[0][0] for sample in stock["own_generate"]]


def test_requests_have_rows_of_their_own_lengths_and_windows(one_by_one):
    assert len({round(x) for x in _floats(one_by_one["own_rolling"])}) > 4
    assert len(_floats(one_by_one["own_choice"])) == 4 * 12


def test_samples_of_one_request_differ_and_stop_where_asked(one_by_one):
    for sample in one_by_one["own_sampled"]:
        assert len(sample[0]) == 2
        assert len(set(sample[0])) > 1
        assert not any("So the" in text for text in sample[0])


def test_the_likelihood_is_the_sum_of_our_log_probabilities():
    model = load(testbed.path())
    ids = torch.arange(5, 45).tolist()
    (rows,) = continuation_log_probabilities(model, [ids], [7])
    with torch.inference_mode():
        expected = ops.log_softmax(model(torch.tensor([ids])).logits[0, -8:-1].contiguous())
    assert torch.equal(rows, expected)
    chosen = [float(row[token]) for row, token in zip(expected, ids[-7:], strict=True)]
    assert score(rows, ids[-7:]) == (math.fsum(chosen), False)
    best = rows.argmax(dim=1).tolist()
    assert score(rows, best)[1] is True
    assert score(rows, best[-2:])[1] is True


def test_ties_count_as_greedy_for_the_lower_index_only():
    rows = torch.full((1, 4), -1.5)
    assert [score(rows, [token])[1] for token in range(4)] == [True, False, False, False]


def test_texts_are_encoded_as_if_each_were_alone():
    # Some tokenizers add a first token; whether they do must not depend on a neighbour.
    model = LayerCastLM("testbed", add_bos_token=True)
    model.tokenizer.add_special_tokens({"bos_token": "<|im_start|>"})
    texts = ["<|im_start|>user", "user and more words"]
    together, mask = model.tok_batch_encode(texts)
    for text, row, own in zip(texts, together, mask, strict=True):
        assert row[own.bool()].tolist() == model.tok_batch_encode([text])[0][0].tolist()
    assert mask[:, -1].all()


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"dtype": "bfloat16"}, "weight_dtype=bfloat16"),
        ({"backend": "seq2seq"}, "--model hf"),
        ({"softmax_dtype": "float64"}, "float32"),
        ({"mixed_precision_dtype": "bfloat16"}, "float32"),
        ({"parallelize": True}, "device="),
        ({"peft": "adapter"}, "Merge"),
        ({"gguf_file": "model.gguf"}, "safetensors"),
        ({"attn_implementation": "sdpa"}, "`attn_implementation` .* no such option"),
        ({"kv_dype": "bfloat16"}, "`kv_dype` .* misspelt"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_change_the_arithmetic_are_refused(options, remedy):
    with pytest.raises(UnsupportedError, match=remedy):
        LayerCastLM("testbed", **options)


def test_a_limit_that_counts_padding_is_refused():
    class Request:
        args = ("text", {"max_length": 20})

    with pytest.raises(ValueRangeError, match="max_gen_toks"):
        LayerCastLM("testbed").generate_until([Request()])


def test_a_continuation_longer_than_the_model_is_refused():
    model = LayerCastLM("testbed", max_length=8)
    with pytest.raises(ValueRangeError, match=r"at most 8 tokens, .* got 9"):
        model._loglikelihood_tokens([(("a", "b"), [1, 2], list(range(9)))], disable_tqdm=True)


def test_storage_options_reach_the_model():
    model = LayerCastLM("testbed", weight_dtype="float16", kv_dtype="bfloat16").model
    assert {p.dtype for p in model.parameters()} == {torch.float16}
    assert model.config.quantization_config.kv_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("given", "added"),
    [
        (["--tasks", "a"], True),
        (["run", "--tasks", "a"], True),
        (["--tasks", "a", "--model_args", "pretrained=x"], True),
        (["--model", "hf", "--tasks", "a"], False),
        (["--model=hf", "--tasks", "a"], False),
        (["-Mhf", "--tasks", "a"], False),
        (["run", "-M", "hf"], False),
        (["ls", "tasks"], False),
        (["validate", "--tasks", "a"], False),
        (["--help"], False),
        (["run"], False),
        ([], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_our_model_is_the_default_of_evaluations(given, added):
    assert command.with_model(given) == [*given, *(["--model", "layercast"] if added else [])]


def test_a_config_file_may_name_the_model(tmp_path):
    named, unnamed = tmp_path / "named.yaml", tmp_path / "unnamed.yaml"
    named.write_text("model: hf\ntasks: [a]\n")
    unnamed.write_text("tasks: [a]\n")
    assert command.with_model(["--config", str(named)]) == ["--config", str(named)]
    assert command.with_model(["-C", str(unnamed)])[-2:] == ["--model", "layercast"]
    assert command.with_model([f"--config={unnamed}"])[-2:] == ["--model", "layercast"]
    missing = ["--config", str(tmp_path / "none.yaml")]
    assert command.with_model(missing)[-1] == "layercast"


def test_without_lm_eval_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentSetupError, match=r"layercast\[lm-eval\]"):
        command.run(["--tasks", "a"])


def test_the_command_evaluates_and_records_the_numerics(tasks, one_by_one, tmp_path):
    words = ["lm-eval", "--model_args", "pretrained=testbed,max_length=256", "--tasks"]
    words += ["own_choice", "--include_path", str(tasks), "--batch_size", "4", "--log_samples"]
    result = subprocess.run(
        [sys.executable, "-m", "layercast", *words, "--output_path", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "layercast ({" in result.stdout
    (samples,) = tmp_path.rglob("samples_own_choice_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    found = [row["resps"] for row in sorted(rows, key=lambda row: row["doc_id"])]
    assert _floats(found) == _floats(one_by_one["own_choice"])
    (totals,) = tmp_path.rglob("results_*.json")
    recorded = json.loads(Path(totals).read_text())["config"]
    assert recorded["model"] == "layercast"
    assert recorded["numerics_version"] == 1


def _floats(found) -> list[float]:
    """Every likelihood in nested answers, in order; as text in samples that were written."""
    if isinstance(found, bool):
        return []
    if isinstance(found, float):
        return [found]
    if isinstance(found, str):
        return [float(found)] if found not in ("True", "False") else []
    return [value for item in found for value in _floats(item)]
