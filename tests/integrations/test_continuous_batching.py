"""Contract under test: an answer is the same bits in continuous batching as in `generate`."""

from __future__ import annotations

import threading

import pytest
import torch
from batched_answers import LONG, SAMPLE, alone, batched, batching, bits
from decoding_variants import PROMPTS, STEPS
from forward_variants import same_bits
from transformers import GenerationConfig
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.generation.continuous_batching.offloading_manager import OffloadingManager

import layercast
from layercast import ops
from layercast.integrations.transformers.functions import contracted_functions

pytestmark = pytest.mark.usefixtures("quiet_batching")


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
