"""Contract under test: over HTTP, an answer is the same alone and beside 31 others.

The client is the official one of OpenAI. Half of the requests are greedy, half drawn with a seed.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from engines import bits
from servers import serving

from layercast import testbed
from layercast.integrations.transformers import Sampling, generate
from layercast.study.instruction_sets import available

pytestmark = pytest.mark.vllm

LAYERCAST = ("--quantization", "layercast", "--dtype", "float32")
REQUESTS = 32
TOKENS = 24


def _questions() -> list[str]:
    return [problem.question for problem in testbed.problems()[:REQUESTS]]


def _sampling(number: int) -> dict:
    return {"temperature": 0.9, "seed": number} if number % 2 else {"temperature": 0.0}


async def _ask(client, number: int) -> list:
    reply = await client.chat.completions.create(
        model="model",
        messages=[{"role": "user", "content": _questions()[number]}],
        max_tokens=TOKENS,
        logprobs=True,
        top_logprobs=5,
        **_sampling(number),
    )
    choice = reply.choices[0]
    entries = choice.logprobs.content
    return [
        choice.message.content,
        bits([entry.logprob for entry in entries]),
        [[(top.token, *bits([top.logprob])) for top in entry.top_logprobs] for entry in entries],
    ]


async def _alone_and_together(address: str) -> tuple[list, list]:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=address, api_key="none") as client:
        alone = [await _ask(client, number) for number in range(REQUESTS)]
        together = await asyncio.gather(*(_ask(client, number) for number in range(REQUESTS)))
    return alone, list(together)


@pytest.fixture(scope="module")
def served(bundled, tmp_path_factory):
    """Answers alone and together, of the bundled model under layercast."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with serving(bundled, log, *LAYERCAST) as address:
        return asyncio.run(_alone_and_together(address))


def test_a_request_is_answered_alike_alone_and_beside_31_others(served):
    alone, together = served
    assert together == alone


def test_the_server_answers_as_transformers_does(served, layercast_model, tokenizer):
    for number, question in enumerate(_questions()):
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        (generation,) = generate(
            layercast_model,
            [tokenizer(text, add_special_tokens=False)["input_ids"]],
            max_new_tokens=TOKENS,
            top_k=5,
            eos_token_ids=[tokenizer.eos_token_id],
            pad_token_id=tokenizer.pad_token_id,
            sampling=Sampling(**_sampling(number)) if number % 2 else None,
        )
        told = tokenizer.decode(generation.token_ids, skip_special_tokens=True)
        assert served[0][number][0] == told
        assert served[0][number][1] == bits(generation.logprobs)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"vllm_xargs": {"layercast_sample_index": "1"}}, "must be an integer from 0 on, got '1'"),
        ({"vllm_xargs": {"layercast_digests": [1]}}, "`layercast_digests` must be a text"),
        ({"vllm_xargs": {"layercast_digests": "a"}, "n": 2}, "`n` must be 1"),
    ],
)
def test_a_request_that_no_worker_could_follow_is_refused_alone(asked, said, still_served):
    """The engine goes on: a worker that refused a request would end it for everyone."""
    from openai import BadRequestError, OpenAI

    with OpenAI(base_url=still_served, api_key="none", max_retries=0) as client:

        def ask(**extra):
            sampling = {"temperature": 0.9, "seed": 1, "max_tokens": 2}
            return client.completions.create(model="model", prompt="Ada", **sampling, **extra)

        with pytest.raises(BadRequestError) as refusal:
            ask(extra_body=asked)
        assert said in refusal.value.response.text
        assert ask().choices[0].text


@pytest.fixture(scope="module")
def still_served(bundled, tmp_path_factory):
    with serving(bundled, tmp_path_factory.mktemp("server") / "log.txt", *LAYERCAST) as address:
        yield address


def test_a_converted_checkpoint_is_served_without_an_argument(bundled, served, tmp_path):
    folder = tmp_path / "converted"
    folder.mkdir()
    for file in bundled.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "layercast"}
    (folder / "config.json").write_text(json.dumps(config))
    with serving(folder, tmp_path / "log.txt", "--dtype", "float32") as address:
        alone, together = asyncio.run(_alone_and_together(address))
    assert alone == served[0]
    assert together == served[0]


def test_an_order_chosen_by_rows_is_answered_otherwise_beside_others(bundled, tmp_path):
    """Control: the same comparison finds the answers of a misordered `linear` to differ."""
    with serving(bundled, tmp_path / "log.txt", *LAYERCAST, misordered=True) as address:
        alone, together = asyncio.run(_alone_and_together(address))
    assert together != alone


@pytest.mark.skipif(
    "avx512" not in available(), reason="needs AVX-512: stock kernels of AVX2 agree on these shapes"
)
def test_stock_bfloat16_is_answered_otherwise_beside_others(bundled, tmp_path):
    """Control: the same comparison finds the stock server's answers to differ."""
    with serving(bundled, tmp_path / "log.txt", "--dtype", "bfloat16") as address:
        alone, together = asyncio.run(_alone_and_together(address))
    assert together != alone
