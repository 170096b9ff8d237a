"""Contract under test: an answer is the same bits in continuous batching as in `generate`."""

from __future__ import annotations

import inspect
import logging
import threading

import numpy as np
import pytest
import torch
from decoding_variants import PROMPTS, STEPS, answers
from forward_variants import same_bits
from tiny_models import VOCABULARY, random_tokens
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.generation.continuous_batching.continuous_api import ContinuousMixin
from transformers.generation.continuous_batching.offloading_manager import OffloadingManager

import layercast
from layercast import ops
from layercast.errors import (
    BackendError,
    DtypeError,
    LayercastError,
    ShapeError,
    UnsupportedError,
    ValueRangeError,
)
from layercast.integrations.transformers.functions import contracted_functions

SAMPLE = {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "seed": 3}
# Two of them begin alike, over more than two blocks of 16.
SHARED = random_tokens(40, 9).tolist()
LONG = [*PROMPTS, [*SHARED, 1, 2, 3], [*SHARED, 4], random_tokens(70, 8).tolist()]
# The field has another name in older releases.
PAGE_SIZE = "page_size" if hasattr(ContinuousBatchingConfig, "page_size") else "block_size"
# Older releases hand over one answer a prompt, and drop its other samples.
HANDS_OVER_SAMPLES = "__child#" in inspect.getsource(ContinuousMixin.generate_batch)


@pytest.fixture(autouse=True)
def _quiet():
    logger = logging.getLogger("ContinuousBatchingLogger")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def batching(page_size=16, num_blocks=60, max_batch_tokens=256, **options):
    options = {PAGE_SIZE: page_size, "num_blocks": num_blocks, **options}
    return ContinuousBatchingConfig(
        max_batch_tokens=max_batch_tokens, return_logprobs=True, **options
    )


def batched(model, prompts, config=None, **options):
    """(tokens, bits of their log-probabilities) of each answer."""
    options = {"max_new_tokens": STEPS, "pad_token_id": 0, **options}
    results = model.generate_batch(
        prompts,
        generation_config=GenerationConfig(**options),
        continuous_batching_config=config or batching(),
    )
    return [(r.generated_tokens, bits(r.logprobs)) for r in results.values()]


def batched_samples(model, prompts, config, **options):
    """As `batched`, in the order of `generate`; None if transformers drops samples, and is refused.

    Children come before their parent, whose sample has index 0.
    """
    n = options.get("num_return_sequences", 1)
    if n > 1 and not HANDS_OVER_SAMPLES:
        with pytest.raises(UnsupportedError, match="Update transformers, or use generate"):
            batched(model, prompts, config, **options)
        return None
    got = batched(model, prompts, config, **options)
    return [got[i + (j - 1) % n] for i in range(0, len(got), n) for j in range(n)]


def bits(logprobs):
    return np.array(logprobs, dtype=np.float32).view(np.int32).tolist()


def alone(model, prompts, **options):
    """The same of `generate`, one prompt at a time."""
    found = []
    for prompt in prompts:
        for answer in answers(model, [prompt], **options):
            rows = ops.log_softmax(answer.logits)
            chosen = rows.gather(1, torch.tensor(answer.tokens)[:, None])[:, 0]
            found.append((answer.tokens, bits(chosen.numpy())))
    return found


@pytest.fixture(scope="module")
def expected(layercast_models):
    """Architecture to the answers of `generate`, greedy."""
    return {
        name: alone(layercast_models[name], LONG) for name in ("llama", "mistral", "qwen2_hybrid")
    }


@pytest.mark.parametrize("options", [{}, SAMPLE], ids=["greedy", "sample"])
def test_every_architecture_answers_as_in_generate(layercast_models, every_architecture, options):
    model = layercast_models[every_architecture]
    assert batched(model, PROMPTS[:3], **options) == alone(model, PROMPTS[:3], **options)


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_keys_in_16_bits_are_rounded_as_in_generate(checkpoints, layercast_models, architecture):
    options = layercast.LayerCastConfig(kv_dtype="bfloat16")
    model = layercast.load(checkpoints[architecture], quantization_config=options)
    got = batched(model, LONG[:3])
    assert got == alone(model, LONG[:3])
    assert got != batched(layercast_models[architecture], LONG[:3])


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2_hybrid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_keys_are_read_where_the_pool_keeps_them(checkpoints, architecture, dtype, monkeypatch):
    attention, steps = ops.paged_attention, []
    options = layercast.LayerCastConfig(kv_dtype=str(dtype).removeprefix("torch."))
    model = layercast.load(checkpoints[architecture], quantization_config=options)
    pools, elsewhere = set(), []
    made = PagedAttentionCache.__init__

    def make(self, *args, **kwargs):
        made(self, *args, **kwargs)
        tensors = getattr(self, "cache_tensor", None)
        tensors = [*self.key_cache, *self.value_cache] if tensors is None else [tensors]
        pools.update(tensor.untyped_storage().data_ptr() for tensor in tensors)

    def spy(q, k_cache, v_cache, *, cu_seqlens_q, **options):
        assert k_cache.dtype is v_cache.dtype is dtype
        places = {x.untyped_storage().data_ptr() for x in (k_cache, v_cache)}
        queries = cu_seqlens_q.diff()
        steps.append(int(queries.max()))
        elsewhere.extend([int(queries.max())] * (not places <= pools))
        return attention(q, k_cache, v_cache, cu_seqlens_q=cu_seqlens_q, **options)

    monkeypatch.setattr(PagedAttentionCache, "__init__", make)
    monkeypatch.setattr(ops, "paged_attention", spy)
    batched(model, LONG)
    assert 1 in steps
    if architecture == "llama":
        assert elsewhere == []
    else:  # a window's ring of slots cannot hold a long chunk of queries and what each one sees
        assert elsewhere
        assert 1 not in elsewhere


class TestScheduling:
    """How requests are scheduled: not a bit depends on it."""

    @pytest.fixture(params=["llama", "mistral", "qwen2_hybrid"])
    def name(self, request):
        return request.param

    @pytest.mark.parametrize(
        "config",
        [
            {},
            {"max_batch_tokens": 7},
            {"max_batch_tokens": 64, "page_size": 8},
            {"page_size": 64, "num_blocks": 20},
            {"max_requests_per_batch": 1},
            {"max_requests_per_batch": 3, "scheduler_type": "prefill_first"},
            {"allow_block_sharing": False},
        ],
        ids=["plain", "chunks of 7", "pages of 8", "pages of 64", "one", "three", "unshared"],
    )
    def test_does_not_show(self, layercast_models, expected, name, config):
        assert batched(layercast_models[name], LONG, batching(**config)) == expected[name]

    def test_order_of_admission_does_not_show(self, layercast_models, expected, name):
        got = batched(layercast_models[name], LONG[::-1])
        assert got[::-1] == expected[name]

    def test_preemption_does_not_show(self, layercast_models, expected, name, monkeypatch):
        evictions = []
        offload = OffloadingManager.offload_requests

        def spy(self):
            evictions.append(1)
            return offload(self)

        monkeypatch.setattr(OffloadingManager, "offload_requests", spy)
        # Room for a part of what 7 sequences grow to: 29 .. 94 tokens, or a window's 16 each.
        room = {"page_size": 8, "num_blocks": 5} if name == "mistral" else {"num_blocks": 7}
        config = batching(**room, safety_margin=0.0)
        assert batched(layercast_models[name], LONG, config) == expected[name]
        assert evictions

    def test_shared_prefixes_do_not_show(self, layercast_models, expected, monkeypatch):
        found = []
        search = PagedAttentionCache.search_prefix_match

        def spy(self, request_id, prompt_ids):
            found.append(search(self, request_id, prompt_ids))
            return found[-1]

        monkeypatch.setattr(PagedAttentionCache, "search_prefix_match", spy)
        # One at a time, so that the later ones find the earlier ones' blocks.
        config = batching(max_requests_per_batch=1)
        got = batched(layercast_models["llama"], [*LONG, *LONG], config)
        assert got == expected["llama"] * 2
        assert sum(length > 0 for length in found) >= 4  # with 16 tokens or more to share

    def test_threads_do_not_show(self, layercast_models, expected):
        torch.set_num_threads(1)
        assert batched(layercast_models["llama"], LONG) == expected["llama"]

    def test_misplaced_keys_would_show(self, layercast_models, expected, monkeypatch):
        # The control: keys taken to lie one position later give other bits.
        model, attention = layercast_models["llama"], ops.paged_attention

        def misplaced(*args, sequence_lengths, first_positions, **options):
            return attention(
                *args,
                sequence_lengths=sequence_lengths + 1,
                first_positions=first_positions + 1,
                **options,
            )

        monkeypatch.setattr(ops, "paged_attention", misplaced)
        got = batched(model, LONG)
        monkeypatch.undo()
        assert got != expected["llama"]


def test_stock_continuous_batching_is_not_batch_invariant(stock_models):
    # The control: the same comparison on stock arithmetic differs in some log-probability.
    torch.set_num_threads(1)  # stock operators on two busy cores are slower on two
    stock = stock_models["llama", torch.float32]
    implementation = stock.config._attn_implementation
    stock.set_attn_implementation("eager")
    try:
        together = batched(stock, LONG)
        assert together != [batched(stock, [prompt])[0] for prompt in LONG]
    finally:
        stock.set_attn_implementation(implementation)


class TestOptions:
    @pytest.mark.parametrize(
        "options",
        [
            {**SAMPLE, "num_return_sequences": 3},
            {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
            {"min_new_tokens": 9, "eos_token_id": list(range(0, VOCABULARY, 2))},
            {"min_length": 25, "eos_token_id": list(range(0, VOCABULARY, 2))},
            {"eos_token_id": [4], "forced_eos_token_id": 4},
            {"do_sample": True, "top_k": 0, "min_p": 0.05, "seed": 2},
            {**SAMPLE, "bad_words_ids": [[1], [2, 3]], "begin_suppress_tokens": [7, 8]},
        ],
        ids=["samples", "penalty", "new_tokens", "min_length", "forced_eos", "min_p", "bad_words"],
    )
    def test_are_those_of_generate(self, layercast_models, options):
        model, prompts = layercast_models["llama"], LONG[:3]
        got = batched_samples(model, prompts, batching(num_blocks=8), **options)
        assert got is None or got == alone(model, prompts, **options)

    def test_samples_of_a_prompt_of_which_one_token_is_left_to_compute(self, layercast_models):
        # Alone, or since all others are shared with a prompt before: transformers cannot fork it.
        model, options = layercast_models["llama"], {**SAMPLE, "num_return_sequences": 2}
        prompts = [[7], SHARED[:33], [*SHARED[:32], 5]]
        got = batched_samples(model, prompts, batching(max_requests_per_batch=2), **options)
        assert got is None or got == alone(model, prompts, **options)

    def test_seed_may_be_an_argument_or_the_batching_configs(self, layercast_models):
        model = layercast_models["llama"]
        config = GenerationConfig(do_sample=True, temperature=0.7, max_new_tokens=8, pad_token_id=0)

        def tokens(argument=None, **batch):
            results = model.generate_batch(PROMPTS[:1], config, batching(**batch), seed=argument)
            return next(iter(results.values())).generated_tokens

        assert tokens() == tokens(0) == tokens(0, seed=5)  # the argument comes first
        assert tokens(5) == tokens(seed=5) != tokens()

    def test_a_manager_may_be_kept_open(self, layercast_models, expected):
        model = layercast_models["llama"]
        config = GenerationConfig(max_new_tokens=STEPS, pad_token_id=0)
        with model.continuous_batching_context_manager(
            generation_config=config, continuous_batching_config=batching()
        ) as manager:
            found = {}
            for prompt in LONG[:3]:
                manager.add_request(input_ids=prompt)
            while len(found) < 3:
                result = manager.get_result(timeout=5)
                found[result.request_id] = result
            with pytest.raises(UnsupportedError, match="`temperature`"):
                manager.add_request(input_ids=[1], temperature=0.5)
        for row in range(3):
            result = found[f"req_{row}"]
            assert (result.generated_tokens, bits(result.logprobs)) == expected["llama"][row]


class TestThreads:
    """Requests are served in a thread of transformers' own."""

    def test_another_thread_may_use_the_model_meanwhile(self, layercast_models):
        model = layercast_models["gemma2"]  # its own code calls tanh, taken over by thread
        expected = alone(model, LONG)
        tokens = torch.tensor([LONG[-1]])
        logits = model(tokens).logits
        config = GenerationConfig(max_new_tokens=STEPS, pad_token_id=0)
        with model.continuous_batching_context_manager(
            generation_config=config, continuous_batching_config=batching()
        ) as manager:
            names = manager.add_requests(LONG)
            found = {}
            while len(found) < len(LONG):
                assert same_bits(model(tokens).logits, logits)
                result = manager.get_result(timeout=0.01)
                if result is not None:
                    found[result.request_id] = (result.generated_tokens, bits(result.logprobs))
        assert [found[name] for name in names] == expected

    def test_functions_are_taken_over_in_each(self):
        scores = torch.randn(64, 500, generator=torch.Generator().manual_seed(0))
        found = []

        def other():
            with contracted_functions(True):
                found.append(torch.log_softmax(scores, dim=-1))

        with contracted_functions(True):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        assert same_bits(found[0], ops.log_softmax(scores))
        # The control: stock ones differ.
        assert not same_bits(torch.log_softmax(scores, dim=-1), found[0])


class TestRefusals:
    def test_answers_that_are_missing_are_an_error(self, layercast_models):
        config = batching(num_blocks=2, max_batch_tokens=16)  # 32 tokens, for 43 and more
        with pytest.raises(BackendError, match="num_blocks"):
            batched(layercast_models["llama"], LONG[4:6], config)

    def test_errors_of_our_own_come_through(self, layercast_models, monkeypatch):
        def broken(*args, **kwargs):
            raise DtypeError("attention: `q` must be float32, got another. Try that.")

        monkeypatch.setattr(ops, "paged_attention", broken)
        with pytest.raises(DtypeError, match="Try that"):
            batched(layercast_models["llama"], PROMPTS[:2])

    def test_stock_returns_without_a_word(self, stock_models):
        # The control: what transformers does with such a failure.
        stock = stock_models["llama", torch.float32]
        results = stock.generate_batch(
            LONG[4:5],
            generation_config=GenerationConfig(max_new_tokens=2, pad_token_id=0),
            continuous_batching_config=batching(num_blocks=2, max_batch_tokens=16),
        )
        assert not any(result.generated_tokens for result in results.values())

    @pytest.mark.parametrize(
        ("options", "error", "says"),
        [
            ({"num_beams": 2}, UnsupportedError, "num_beams"),
            ({"stop_strings": ["a"]}, UnsupportedError, "stop_strings"),
            ({"max_time": 1.0}, UnsupportedError, "max_time"),
            ({"prompt_lookup_num_tokens": 3}, UnsupportedError, "prompt_lookup_num_tokens"),
            ({"do_sample": True, "typical_p": 0.9}, UnsupportedError, "typical_p"),
            ({"guidance_scale": 1.5}, UnsupportedError, "guidance_scale"),
            ({"max_new_tokens": None}, ValueRangeError, "max_new_tokens"),
            ({"do_sample": True, "seed": -1}, ValueRangeError, "seed"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_of_the_generation_config(self, layercast_models, options, error, says):
        with pytest.raises(error, match=says):
            batched(layercast_models["llama"], PROMPTS[:1], **options)

    @pytest.mark.parametrize(
        "config",
        [
            {"per_request_processors": True},
            {"default_compile_level": 1},
            {"use_cuda_graph": True},
            {"use_cuda_graph": (False, True)},
            {"use_async_batching": True},
            {"q_padding_interval_size": 64},
        ],
    )
    def test_of_the_batching_config(self, layercast_models, config):
        with pytest.raises(UnsupportedError, match=next(iter(config))):
            batched(layercast_models["llama"], PROMPTS[:1], batching(**config))

    @pytest.mark.parametrize(
        ("prompts", "error"),
        [([[]], ShapeError), ([[VOCABULARY]], ValueRangeError), ([[1], [-1]], ValueRangeError)],
    )
    def test_of_prompts(self, layercast_models, prompts, error):
        with pytest.raises(error, match="`inputs`"):
            batched(layercast_models["llama"], prompts)

    def test_of_a_manager_to_be_kept(self, layercast_models):
        config = GenerationConfig(max_new_tokens=2, pad_token_id=0)
        with pytest.raises(UnsupportedError, match="persistent_manager"):
            layercast_models["llama"].generate_batch(
                PROMPTS[:1], config, batching(), persistent_manager=True
            )

    def test_of_a_paged_cache_in_generate(self, layercast_models):
        with pytest.raises(LayercastError, match="generate_batch"):
            layercast_models["llama"].generate(
                torch.tensor(PROMPTS[:1]), max_new_tokens=2, cache_implementation="paged"
            )

    def test_no_prompts_give_no_answers(self, layercast_models):
        assert batched(layercast_models["llama"], []) == []
