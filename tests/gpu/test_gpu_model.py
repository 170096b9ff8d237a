"""The bundled model on a CUDA device: its log-probabilities are the CPU's, in any batch."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, ContinuousBatchingConfig, GenerationConfig, StaticCache

import layercast
from layercast import testbed
from layercast.integrations.transformers import generate
from layercast.integrations.transformers.sampling import Sampling

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def prompts():
    tokenizer = AutoTokenizer.from_pretrained(testbed.path())
    return [tokenizer(problem.question)["input_ids"] for problem in testbed.problems("test")]


@pytest.fixture(scope="module")
def models():
    return layercast.load(testbed.path()), layercast.load(testbed.path()).to("cuda")


def answers(model, prompts):
    return generate(model, prompts, max_new_tokens=40, eos_token_ids=(), pad_token_id=0)


def assert_same(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        assert a.token_ids == b.token_ids
        np.testing.assert_array_equal(a.digests, b.digests)
        assert a.logprobs.tobytes() == b.logprobs.tobytes()


def test_every_problem_has_the_bits_of_the_cpu(models, prompts):
    on_cpu, on_gpu = models
    assert_same(answers(on_gpu, prompts), answers(on_cpu, prompts))


def test_neither_batch_nor_run_changes_a_bit(models, prompts):
    _, model = models
    some_prompts = prompts[:24]
    whole = answers(model, some_prompts)
    assert_same(answers(model, some_prompts), whole)
    for size in (1, 5):
        batches = (some_prompts[at : at + size] for at in range(0, 24, size))
        some = [answer for batch in batches for answer in answers(model, batch)]
        assert_same(some, whole)


def test_prefill_in_parts(models, prompts):
    _, model = models
    ids = torch.tensor([prompts[0]], device="cuda")
    with torch.inference_mode():
        whole = model(ids).logits
        first = model(ids[:, :5], use_cache=True)
        rest = model(ids[:, 5:], past_key_values=first.past_key_values).logits
    assert torch.equal(torch.cat([first.logits, rest], 1), whole)


def test_replays_of_a_captured_step_have_the_bits_of_the_cpu(models, prompts):
    on_cpu, on_gpu = models
    ids = torch.tensor([prompts[0][:10], prompts[1][:10]])
    mask = torch.ones(2, 32, dtype=torch.int64)
    mask[1, :3] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)

    def forward(model, cache, *tensors):
        ids, mask, positions = (x.to(model.device) for x in tensors)
        return model(ids, attention_mask=mask, position_ids=positions, past_key_values=cache).logits

    def part(begin, end):
        return ids[:, begin:end], mask[:, :end], positions[:, begin:end]

    with torch.inference_mode():
        caches = [StaticCache(config=model.config, max_cache_len=32) for model in models]
        for at in ((0, 4), (4, 5)):  # the step is run once before it is captured
            expected = forward(on_cpu, caches[0], *part(*at))
            assert torch.equal(forward(on_gpu, caches[1], *part(*at)).cpu(), expected)
        columns = ids[:, 5:6], mask, positions[:, 5:6]
        token, wide, position = (x.to("cuda") for x in columns)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = forward(on_gpu, caches[1], token, wide, position)
        for i in range(5, 10):
            token.copy_(ids[:, i : i + 1])
            position.copy_(positions[:, i : i + 1])
            graph.replay()
            assert torch.equal(logits.cpu(), forward(on_cpu, caches[0], *part(i, i + 1)))
        position[0] += 1  # the second row is given its last position again
        graph.replay()
        assert logits.isnan().all(-1).flatten().tolist() == [False, True]


@pytest.mark.parametrize("sampling", [None, Sampling(top_k=50, top_p=0.9, seed=3)])
def test_continuous_batching_answers_as_generate_on_the_cpu(models, prompts, sampling):
    on_cpu, on_gpu = models
    expected = generate(on_cpu, prompts[:6], max_new_tokens=12, sampling=sampling)
    options = {} if sampling is None else {"do_sample": True, "top_k": 50, "top_p": 0.9, "seed": 3}
    pages = "page_size" if hasattr(ContinuousBatchingConfig, "page_size") else "block_size"
    results = on_gpu.generate_batch(
        prompts[:6],
        generation_config=GenerationConfig(max_new_tokens=12, pad_token_id=0, **options),
        continuous_batching_config=ContinuousBatchingConfig(
            max_batch_tokens=256, num_blocks=60, return_logprobs=True, **{pages: 16}
        ),
    )
    for answer, wanted in zip(results.values(), expected, strict=True):
        assert tuple(answer.generated_tokens) == wanted.token_ids
        assert np.array(answer.logprobs, np.float32).tobytes() == wanted.logprobs.tobytes()
