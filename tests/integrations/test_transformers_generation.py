"""Contract under test: `generate` records what was decoded, and padding never shows."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from forward_variants import SEQUENCES
from tiny_models import VOCABULARY
from transformers import GenerationConfig

from layercast import ops
from layercast.errors import ShapeError, ValueRangeError
from layercast.integrations.transformers import generate, recorder
from layercast.integrations.transformers.generation import end_of_sequence_ids, padding_id

PROMPTS = [
    tokens[:length].tolist() for tokens, length in zip(SEQUENCES, (20, 5, 33, 1), strict=False)
]
STEPS = 40


def end_tokens(model):
    """Tokens that do occur, so that answers of a batch end at different steps."""
    answers = generate(model, PROMPTS, max_new_tokens=STEPS)
    return [answers[0].token_ids[7], answers[1].token_ids[30]]


def assert_same(a, b):
    assert (a.prompt_ids, a.token_ids, a.finish_reason) == (
        b.prompt_ids,
        b.token_ids,
        b.finish_reason,
    )
    np.testing.assert_array_equal(a.digests, b.digests)
    np.testing.assert_array_equal(a.logprobs.view(np.int32), b.logprobs.view(np.int32))
    np.testing.assert_array_equal(a.top_ids, b.top_ids)
    np.testing.assert_array_equal(a.top_logprobs.view(np.int32), b.top_logprobs.view(np.int32))


def stepwise(model, prompt, eos, log_softmax, top_k=5):
    """Greedy decoding written out: one forward pass a step, no cache, no batch."""
    tokens, records = list(prompt), []
    with torch.inference_mode():
        for _ in range(STEPS):
            logits = model(torch.tensor([tokens]), use_cache=False).logits[0, -1].float()
            row = log_softmax(logits[None])[0].numpy()
            order = sorted(range(len(row)), key=lambda i: (-float(logits[i]), i))[:top_k]
            digest = hashlib.blake2b(row.tobytes(), digest_size=8).digest()
            records.append(
                (order[0], row[order[0]], order, row[order], int.from_bytes(digest, "little"))
            )
            tokens.append(order[0])
            if order[0] in eos:
                break
    return records


def test_generation_is_the_decoding_written_out_step_by_step(model):
    eos = end_tokens(model)
    for answer in generate(model, PROMPTS, max_new_tokens=STEPS, eos_token_ids=eos):
        records = stepwise(model, answer.prompt_ids, eos, ops.log_softmax)
        assert answer.token_ids == tuple(r[0] for r in records)
        assert answer.finish_reason == ("stop" if records[-1][0] in eos else "length")
        assert answer.digests.tolist() == [r[4] for r in records]
        np.testing.assert_array_equal(answer.logprobs, np.array([r[1] for r in records]))
        np.testing.assert_array_equal(answer.top_ids, np.array([r[2] for r in records]))
        np.testing.assert_array_equal(answer.top_logprobs, np.array([r[3] for r in records]))


def test_answers_end_at_different_steps_of_the_batch(model):
    answers = generate(model, PROMPTS, max_new_tokens=STEPS, eos_token_ids=end_tokens(model))
    assert len({len(answer.token_ids) for answer in answers}) > 1
    assert {answer.finish_reason for answer in answers} >= {"stop"}
    for answer in answers:
        T = len(answer.token_ids)
        assert answer.logprobs.shape == answer.digests.shape == (T,)
        assert answer.top_ids.shape == answer.top_logprobs.shape == (T, 5)
        assert [a.dtype for a in (answer.logprobs, answer.top_ids, answer.digests)] == [
            np.float32,
            np.int32,
            np.uint64,
        ]


def test_generation_is_batch_invariant_and_its_padding_token_changes_nothing(model):
    eos = end_tokens(model)
    options = {"max_new_tokens": STEPS, "eos_token_ids": eos}
    together = generate(model, PROMPTS, **options)
    backwards = generate(model, PROMPTS[::-1], pad_token_id=VOCABULARY - 1, **options)[::-1]
    for prompt, a, b in zip(PROMPTS, together, backwards, strict=True):
        assert_same(a, b)
        assert_same(a, generate(model, [prompt], **options)[0])


def test_stock_generation_is_recorded_but_not_batch_invariant(stock_models):
    # The control: the same comparison on stock arithmetic differs in some digest.
    torch.set_num_threads(1)  # stock operators on two busy cores are slower on two

    def differs(stock):
        together = generate(stock, PROMPTS, max_new_tokens=STEPS)
        alone = [generate(stock, [prompt], max_new_tokens=STEPS)[0] for prompt in PROMPTS]
        assert all(len(answer.digests) == STEPS for answer in (*together, *alone))
        return any(
            a.digests.tolist() != b.digests.tolist() for a, b in zip(together, alone, strict=True)
        )

    assert any(differs(stock) for stock in stock_models.values())


def test_small_buffers_give_the_same_records(layercast_models, monkeypatch):
    model = layercast_models["qwen2"]
    options = {"max_new_tokens": STEPS, "eos_token_ids": end_tokens(model)}
    expected = generate(model, PROMPTS, **options)
    monkeypatch.setattr(recorder, "_BUFFER_BYTES", 1)
    for a, b in zip(expected, generate(model, PROMPTS, **options), strict=True):
        assert_same(a, b)


def test_top_candidates_break_ties_by_the_lower_index():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 12, (64, 200), generator=generator).float()  # full of ties
    logits[0] = torch.arange(200.0)  # and one row without
    logits[1, :3] = torch.tensor([0.0, -0.0, 0.0])
    for k in (1, 5, 200):
        expected = [sorted(range(200), key=lambda i, r=r: (-float(r[i]), i))[:k] for r in logits]
        assert recorder.top_k_indices(logits, k).tolist() == expected


def test_generation_config_of_the_checkpoint_is_not_used_and_stays(layercast_models):
    model = layercast_models["qwen2"]
    expected = generate(model, PROMPTS, max_new_tokens=8)
    own = model.generation_config
    penalised = GenerationConfig(repetition_penalty=5.0, do_sample=True, bad_words_ids=[[1]])
    model.generation_config = penalised
    try:
        for a, b in zip(expected, generate(model, PROMPTS, max_new_tokens=8), strict=True):
            assert_same(a, b)
        assert model.generation_config is penalised
    finally:
        model.generation_config = own


def test_progress_counts_the_tokens_of_all_answers(layercast_models):
    model = layercast_models["llama"]
    steps: list[int] = []
    answers = generate(
        model, PROMPTS, max_new_tokens=STEPS, eos_token_ids=end_tokens(model), on_step=steps.append
    )
    assert len(steps) == max(len(answer.token_ids) for answer in answers)
    assert steps == sorted(steps)
    assert steps[-1] == sum(len(answer.token_ids) for answer in answers)


def test_no_prompts_give_no_answers(layercast_models):
    assert generate(layercast_models["llama"], [], max_new_tokens=3) == []


@pytest.mark.parametrize(
    ("prompts", "options", "error", "says"),
    [
        ([[1], []], {}, ShapeError, "row 1"),
        ([[1, VOCABULARY]], {}, ValueRangeError, "tokenizer of this checkpoint"),
        ([[1, -1]], {}, ValueRangeError, "got -1 in row 0"),
        ([[1]], {"max_new_tokens": 0}, ValueRangeError, "at least 1"),
        ([[1]], {"top_k": 0}, ValueRangeError, "`top_k`"),
        ([[1]], {"top_k": VOCABULARY + 1}, ValueRangeError, "`top_k`"),
        ([[1]], {"pad_token_id": -1}, ValueRangeError, "`pad_token_id`"),
    ],
)
def test_bad_arguments_are_refused(layercast_models, prompts, options, error, says):
    with pytest.raises(error, match=says):
        generate(layercast_models["llama"], prompts, **{"max_new_tokens": 2, **options})


def test_special_tokens_are_those_the_checkpoint_declares(layercast_models):
    model = layercast_models["llama"]
    own = model.generation_config

    class Tokenizer:
        eos_token_id, pad_token_id = 9, 8

    try:
        model.generation_config = GenerationConfig(eos_token_id=[5, 3], pad_token_id=4)
        assert (end_of_sequence_ids(model), padding_id(model)) == ((3, 5), 4)
        model.generation_config = GenerationConfig(eos_token_id=5)
        assert (end_of_sequence_ids(model), padding_id(model)) == ((5,), 5)
        model.generation_config = GenerationConfig()
        assert (end_of_sequence_ids(model), padding_id(model)) == ((), 0)
        assert (end_of_sequence_ids(model, Tokenizer), padding_id(model, Tokenizer)) == ((9,), 8)
    finally:
        model.generation_config = own
