"""What the tests of vLLM share: the bundled model, its prompts, and transformers' answers.

Nothing here imports vLLM: engines run in processes of their own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.append(str(Path(__file__).parents[1] / "integrations"))  # tiny_models

import torch
from engines import Engine, greedy, sampled
from transformers import AutoTokenizer

import layercast
from layercast import testbed
from layercast.integrations.transformers import Sampling, generate

TOKENS = 48
SEED = 11


@pytest.fixture(scope="session")
def bundled() -> Path:
    return testbed.path()


@pytest.fixture(scope="session")
def tokenizer(bundled):
    return AutoTokenizer.from_pretrained(bundled)


@pytest.fixture(scope="session")
def prompts(tokenizer) -> list[list[int]]:
    """16 prompts of several lengths, each other beginning alike."""
    found = []
    for number, problem in enumerate(testbed.problems()[:16]):
        question = problem.question if number % 2 else f"{problem.question} {problem.question}"
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        found.append(tokenizer(text, add_special_tokens=False)["input_ids"])
    return found


@pytest.fixture(scope="session")
def requests(prompts) -> list[dict]:
    """Greedy for the even ones, drawn for the odd ones, with a seed of each its own."""
    return [
        sampled(prompt, SEED + number, tokens=TOKENS)
        if number % 2
        else greedy(prompt, tokens=TOKENS)
        for number, prompt in enumerate(prompts)
    ]


@pytest.fixture(scope="session")
def layercast_model(bundled):
    torch.set_num_threads(1)
    return layercast.load(bundled)


@pytest.fixture(scope="session")
def by_transformers(layercast_model, tokenizer, prompts):
    """The same answers by transformers, each computed alone."""
    answers = []
    for number, prompt in enumerate(prompts):
        sampling = Sampling(temperature=0.9, seed=SEED + number) if number % 2 else None
        (answer,) = generate(
            layercast_model,
            [prompt],
            max_new_tokens=TOKENS,
            top_k=5,
            eos_token_ids=[tokenizer.eos_token_id],
            pad_token_id=tokenizer.pad_token_id,
            sampling=sampling,
        )
        answers.append(answer)
    return answers


@pytest.fixture(scope="session")
def alone(bundled, requests, tmp_path_factory) -> list[dict]:
    """Each request alone: what everything is compared with."""
    result = Engine(bundled).run(tmp_path_factory.mktemp("alone"), *([r] for r in requests))
    return [answer for (answer,) in result["rounds"]]
