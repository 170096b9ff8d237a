"""Contract under test: continuous batching takes the options of `generate`, or refuses by name."""

from __future__ import annotations

import pytest
import torch
from batched_answers import LONG, SAMPLE, SHARED, alone, batched, batched_samples, batching, bits
from decoding_variants import PROMPTS, STEPS
from tiny_models import VOCABULARY
from transformers import GenerationConfig

from layercast import ops
from layercast.errors import (
    BackendError,
    DtypeError,
    LayercastError,
    ShapeError,
    UnsupportedError,
    ValueRangeError,
)

pytestmark = pytest.mark.usefixtures("quiet_batching")


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

    def test_a_manager_may_be_kept_open(self, layercast_models):
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
        answers = [found[f"req_{row}"] for row in range(3)]
        got = [(answer.generated_tokens, bits(answer.logprobs)) for answer in answers]
        assert got == alone(model, LONG[:3])


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
