"""Contract under test: vLLM and transformers give the same tokens and the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engines import LAYERCAST, STOCK, Engine, bits, greedy, sampled
from tiny_models import random_tokens, save_checkpoint

import layercast
from layercast import ops
from layercast.integrations.transformers import Sampling, generate

pytestmark = pytest.mark.vllm

# Prompts below, at and above a block of 64 keys and a window of 16.
LENGTHS = (5, 17, 64, 131)


def told(answer: dict) -> list:
    """Tokens, their log-probabilities and the five best, by bits."""
    (sample,) = answer["samples"]
    return [
        sample["tokens"],
        bits(sample["logprobs"]),
        [[token for token, _ in entry[:5]] for entry in sample["top"]],
        [bits([p for _, p in entry[:5]]) for entry in sample["top"]],
    ]


def expected(generation) -> list:
    return [
        list(generation.token_ids),
        bits(generation.logprobs),
        generation.top_ids.tolist(),
        [bits(row) for row in generation.top_logprobs],
    ]


def test_bundled_model(alone, by_transformers):
    assert [told(answer) for answer in alone] == [expected(g) for g in by_transformers]


def test_stock_float32_differs(bundled, prompts, by_transformers, tmp_path):
    """Control: stock vLLM's float32 log-probabilities are other ones."""
    requests = [greedy(prompt, tokens=48) for prompt in prompts[::2]]
    (answers,) = Engine(bundled, dict(STOCK)).run(tmp_path, requests)["rounds"]
    assert [told(a) for a in answers] != [expected(g) for g in by_transformers[::2]]


def test_every_row_of_log_probabilities(bundled, prompts, by_transformers, tmp_path):
    """Digests of whole rows, kept by the sampler, while requests are chunked and preempted."""
    requests = [
        greedy(prompt, tokens=48, extra_args={"layercast_digests": f"request-{number}"})
        for number, prompt in enumerate(prompts[::2])
    ]
    engine = Engine(
        bundled,
        {**LAYERCAST, "max_num_batched_tokens": 24, "num_gpu_blocks_override": 16}
        | {"block_size": 32, "max_num_seqs": 8, "max_model_len": 256},
    )
    result = engine.run(tmp_path, requests)
    assert result["metrics"]["vllm:num_preemptions"] > 0
    for answer, generation in zip(result["rounds"][0], by_transformers[::2], strict=True):
        assert answer["digests"] == [int(d) for d in generation.digests]


def test_a_name_of_digests_given_twice_is_that_of_the_later_request(
    bundled, prompts, by_transformers, tmp_path
):
    named = {"layercast_digests": "name"}
    requests = [greedy(prompts[number], tokens=8, extra_args=named) for number in (0, 2)]
    (answers,) = Engine(bundled).run(tmp_path, requests)["rounds"]
    assert answers[0]["digests"] == [int(d) for d in by_transformers[2].digests[:8]]


def test_log_probabilities_of_prompts(bundled, prompts, layercast_model, tmp_path):
    requests = [greedy(prompt, tokens=1, prompt_logprobs=0) for prompt in prompts[:4]]
    engine = Engine(bundled, {**LAYERCAST, "max_num_batched_tokens": 32})
    (answers,) = engine.run(tmp_path, requests)["rounds"]
    for prompt, answer in zip(prompts, answers, strict=False):
        with torch.inference_mode():
            logits = layercast_model(torch.tensor([prompt])).logits[0, :-1]
        following = torch.tensor(prompt[1:])[:, None]
        logprobs = ops.log_softmax(logits).gather(1, following)[:, 0]
        got = [entry[0][1] for entry in answer["prompt_logprobs"]]
        assert bits(got) == bits(logprobs.numpy())


def test_sampling_settings(bundled, prompts, layercast_model, tokenizer, tmp_path):
    settings = [
        {"temperature": 0.7, "top_p": 0.8},
        {"temperature": 1.3, "top_k": 7},
        {"temperature": 1.0, "min_p": 0.05, "top_p": 0.95, "top_k": 50},
        {"temperature": 0.9},
    ]
    requests = [
        sampled(prompt, 3 + i, **s)
        for i, (prompt, s) in enumerate(zip(prompts[:4], settings, strict=True))
    ]
    requests.append(sampled(prompts[0], 3, extra_args={"layercast_sample_index": 2}, **settings[0]))
    (answers,) = Engine(bundled).run(tmp_path, requests)["rounds"]
    cases = [(i, 0) for i in range(len(settings))] + [(0, 2)]
    for (case, index), answer in zip(cases, answers, strict=True):
        (generation,) = generate(
            layercast_model,
            [prompts[case]],
            max_new_tokens=32,
            top_k=5,
            eos_token_ids=[tokenizer.eos_token_id],
            pad_token_id=tokenizer.pad_token_id,
            sampling=Sampling(seed=3 + case, **settings[case]),
            sample_indices=[index],
        )
        assert told(answer) == expected(generation)


ARCHITECTURES = ["gemma2", "gemma3", "granite", "llama", "mistral", "qwen2", "qwen3"]
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures(architecture, tmp_path):
    folder = save_checkpoint(tmp_path / "checkpoint", architecture)
    check_equal(folder, tmp_path / "engine")


@pytest.mark.parametrize(
    "rope",
    [
        {**YARN, "original_max_position_embeddings": 64},
        {"rope_type": "linear", "rope_theta": 5000.0, "factor": 3.0},
    ],
    ids=["yarn", "linear"],
)
def test_scaled_rotary_embeddings(rope, tmp_path):
    folder = save_checkpoint(
        tmp_path / "checkpoint", "qwen3", rope_parameters=rope, max_position_embeddings=256
    )
    check_equal(folder, tmp_path / "engine")


def test_longrope_within_the_length_of_training(tmp_path):
    folder = save_checkpoint(tmp_path / "checkpoint", "phi3")
    check_equal(folder, tmp_path / "engine", lengths=(5, 17, 64), max_model_len=96)


def check_equal(folder, engine_folder, *, lengths=LENGTHS, environment=None, **options):
    """Answers of an engine with these options are transformers' answers."""
    prompts = [random_tokens(length, seed=length).tolist() for length in lengths]
    requests = [greedy(prompt, tokens=24, ignore_eos=True) for prompt in prompts]
    engine = Engine(
        folder,
        {**LAYERCAST, "skip_tokenizer_init": True, "max_model_len": 256, **options},
        environment or {},
    )
    (answers,) = engine.run(engine_folder, requests)["rounds"]
    generations = generate(
        layercast.load(folder),
        prompts,
        max_new_tokens=24,
        top_k=5,
        eos_token_ids=[],
        pad_token_id=0,
    )
    assert [told(answer) for answer in answers] == [expected(g) for g in generations]
    assert all(np.isfinite(g.logprobs).all() for g in generations)
