"""Contract under test: over HTTP too, an answer is the same alone and beside 31 others."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from fastapi import HTTPException
from http_server import server
from openai import BadRequestError
from transformers import AutoTokenizer, GenerationConfig

import layercast
from layercast import testbed
from layercast.checkpoints import convert
from layercast.errors import (
    EnvironmentSetupError,
    GuaranteeError,
    UnsupportedError,
    ValueRangeError,
)
from layercast.integrations.transformers import serving

OURS = ["-m", "layercast", "serve"]
STOCK = ["-c", "from transformers.cli.transformers import app; app()", "serve"]
BATCHED = ["--continuous-batching"]
QUESTIONS = [problem.question for problem in testbed.problems()[:32]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "checkpoint"
    convert(testbed.path(), folder)
    return folder


def test_greedy_answers_are_the_same_alone_and_beside_31_others(checkpoint, tmp_path):
    with server(OURS, checkpoint, BATCHED, tmp_path / "log") as served:
        alone = [served.answer(question) for question in QUESTIONS]
        assert len(set(alone)) > 16
        assert served.at_once(QUESTIONS) == alone
        assert served.at_once(QUESTIONS[::-1]) == alone[::-1]
        # The server strips a whole answer, and not its pieces.
        assert served.streamed(QUESTIONS[0]).strip() == alone[0]
        with pytest.raises(BadRequestError) as refusal:
            served.answer(QUESTIONS[0], temperature=1.0, seed=1)
        assert "`do_sample` must be that of the first request" in refusal.value.response.text
    # What the server says is what the loaded model says.
    model, tokenizer = layercast.load(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTIONS[0]}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    ids = model.generate(**inputs, max_new_tokens=40, do_sample=False)
    answer = tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer.strip() == alone[0].strip()


def test_sampled_answers_are_the_same_alone_and_beside_31_others(checkpoint, tmp_path):
    sampling = {"temperature": 1.0, "seed": 5}
    with server(OURS, checkpoint, BATCHED, tmp_path / "log") as served:
        alone = [served.answer(question, **sampling) for question in QUESTIONS[:8]]
        assert served.at_once(QUESTIONS, **sampling)[:8] == alone


def test_each_request_is_drawn_by_its_own_seed_without_continuous_batching(checkpoint, tmp_path):
    question = QUESTIONS[0]
    with server(OURS, checkpoint, [], tmp_path / "log") as served:
        greedy = served.answer(question)
        drawn = [served.answer(question, temperature=1.5, seed=seed) for seed in range(4)]
        assert len({greedy, *drawn}) > 2
        again = [served.answer(question, temperature=1.5, seed=seed) for seed in range(4)]
        assert again == drawn
        assert served.answer(question, temperature=1.5) == drawn[0]
        others = served.at_once([question, *QUESTIONS[1:32]], temperature=1.5, seed=3)
        assert others[0] == drawn[3]


def test_continuous_batching_takes_no_setting_but_the_first_requests():
    begin = serving._once_for_all(_begin_unless_beams)
    manager, first = SimpleNamespace(), GenerationConfig(max_new_tokens=8)
    with pytest.raises(UnsupportedError):
        begin(manager, None, GenerationConfig(num_beams=2))
    begin(manager, None, first)  # a request that was refused has fixed nothing
    begin(manager, None, GenerationConfig(max_new_tokens=9, eos_token_id=3))
    for other in ({"sequence_bias": {(5,): 9.0}}, {"no_repeat_ngram_size": 2}, {"num_beams": 2}):
        with pytest.raises(HTTPException) as refusal:
            begin(manager, None, GenerationConfig(max_new_tokens=8, **other))
        assert f"`{next(iter(other))}` must be that of the first" in refusal.value.detail


@pytest.mark.parametrize("seed", [-1, 2**63, "five", True])
def test_a_seed_that_cannot_be_drawn_by_is_the_clients_mistake(seed):
    build = serving._with_sampling(lambda self, body: GenerationConfig())
    assert build(None, {"seed": 5}).seed == 5
    with pytest.raises(HTTPException) as refusal:
        build(None, {"seed": seed})
    assert refusal.value.status_code == 400
    assert "`seed` must" in refusal.value.detail


def _begin_unless_beams(manager, model, config):
    if config.num_beams == 2:
        raise UnsupportedError("beams")


def test_control_stock_samples_depend_on_their_neighbours(tmp_path):
    asked = {"do_sample": True, "temperature": 1.0, "max_new_tokens": 12}
    sampling = {"temperature": 1.0, "seed": 5}
    sampling["extra_body"] = {"generation_config": json.dumps(asked)}
    options = ["--dtype", "float32", "--device", "cpu"]
    with server(STOCK, testbed.path(), options, tmp_path / "log") as served:
        alone = [served.answer(question, **sampling) for question in QUESTIONS[:4]]
        assert [served.answer(question, **sampling) for question in QUESTIONS[:4]] == alone
        assert served.at_once(QUESTIONS, **sampling)[:4] != alone


@pytest.mark.slow
def test_control_stock_greedy_answers_depend_on_their_neighbours(tmp_path):
    options = [*BATCHED, "--attn-implementation", "eager", "--dtype", "bfloat16", "--device", "cpu"]
    with server(STOCK, testbed.path(), options, tmp_path / "log") as served:
        alone = [served.answer(question, max_tokens=120) for question in QUESTIONS]
        assert served.at_once(QUESTIONS, max_tokens=120) != alone


def test_refuses_what_would_run_by_stock_arithmetic(checkpoint, monkeypatch):
    with pytest.raises(GuaranteeError, match="layercast convert"):
        serving.serve(str(testbed.path()), [])
    for option in ("--compile", "--quantization=bnb-4bit", "--dtype", "--attn-implementation",
                   "--default-seed"):  # fmt: skip
        with pytest.raises(UnsupportedError, match=option.partition("=")[0]):
            serving.serve(str(checkpoint), [option])
    with pytest.raises(ValueRangeError, match="must come first"):
        serving.serve("--port", ["8000", str(checkpoint)])
    monkeypatch.setattr(serving, "is_serve_available", lambda: False)
    with pytest.raises(EnvironmentSetupError, match=r"layercast\[serve\]"):
        serving.serve(str(checkpoint), [])


def test_the_command_says_why_in_one_line():
    result = subprocess.run(
        [sys.executable, *OURS, str(testbed.path())],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("layercast: serve: ")
    assert len(result.stderr.strip().splitlines()) == 1
