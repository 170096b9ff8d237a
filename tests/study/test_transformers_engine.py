"""Contract under test: what an axis varies is what runs, and layercast's answers do not notice.

The controls are stock bf16 answers, whose bits do.
"""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_checkpoint import save_tiny_checkpoint
from transformers import Qwen2Config

from layercast.checkpoints import convert
from layercast.errors import UnsupportedError
from layercast.study.batches import batch_seed
from layercast.study.engines import Answer, BatchRequest, Draws, Opening, Prompt, transformers
from layercast.study.engines.prefixes import warm_cache

TEXTS = (
    "one two three four five",
    "six",
    "a much longer prompt than the others are, by far",
    "7 8",
)
PRECISIONS = ("layercast", "bf16")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("axes"))


@pytest.fixture(scope="module")
def opened(checkpoint: Path) -> Any:
    """Return a function that opens an engine once for each way of opening it."""

    @cache
    def open_once(precision: str, **fixed: str) -> transformers.TransformersEngine:
        return transformers.open_engine(Opening("tiny", checkpoint, precision, 1, **fixed))

    return open_once


@pytest.fixture(scope="module")
def prompts(checkpoint: Path) -> tuple[Prompt, ...]:
    conversations = [[{"role": "user", "content": text}] for text in TEXTS]
    return tuple(transformers.encode(checkpoint, conversations))


def answers(engine: Any, prompts: tuple[Prompt, ...], **fields: Any) -> list[Answer]:
    indices = fields.pop("sample_indices", (0,) * len(prompts))
    request = BatchRequest(prompts, 12, 3, indices, **fields)
    return list(engine.answer(request, lambda tokens: None))


def bits(found: list[Answer]) -> list[tuple[tuple[int, ...], bytes, bytes]]:
    return [(tuple(a.token_ids), a.digests.tobytes(), a.top_logprobs.tobytes()) for a in found]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_converted_checkpoint_answers_as_its_source_at_every_precision(
    precision: str, checkpoint: Path, opened: Any, prompts: tuple[Prompt, ...], tmp_path: Path
) -> None:
    converted = tmp_path / "converted"
    convert(checkpoint, converted)
    engine = transformers.open_engine(Opening("tiny", converted, precision, 1))
    assert engine.facts() == opened(precision).facts()
    assert bits(answers(engine, prompts)) == bits(answers(opened(precision), prompts))


@pytest.mark.parametrize(
    ("asked", "kept"), [("default", "bfloat16"), ("fp16", "float16"), ("fp32", "float32")]
)
def test_a_converted_checkpoint_keeps_its_options_unless_the_plan_says_otherwise(
    checkpoint: Path, tmp_path: Path, asked: str, kept: str
) -> None:
    converted = tmp_path / "converted"
    convert(checkpoint, converted)
    config = json.loads((converted / "config.json").read_text())
    config["quantization_config"]["kv_dtype"] = "bfloat16"
    (converted / "config.json").write_text(json.dumps(config))
    engine = transformers.open_engine(Opening("tiny", converted, "layercast", 1, kv_dtype=asked))
    assert engine.facts()["kv_dtype"] == kept


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "axis", [{"prefill_chunk": 5}, {"warm_prefix": True}], ids=["chunk", "warm"]
)
def test_splitting_the_prefill_moves_stock_bits_and_never_ours(
    opened: Any, prompts: tuple[Prompt, ...], precision: str, axis: dict[str, Any]
) -> None:
    engine = opened(precision)
    whole, split = answers(engine, prompts), answers(engine, prompts, **axis)
    assert (bits(whole) == bits(split)) is (precision == "layercast")
    # Not another model: the first token's probabilities are those of the whole, nearly.
    for one, other in zip(whole, split, strict=True):
        assert np.allclose(one.top_logprobs[0, 0], other.top_logprobs[0, 0], atol=0.3)


def test_neighbours_in_another_order_move_none_of_our_bits(
    opened: Any, prompts: tuple[Prompt, ...]
) -> None:
    engine = opened("layercast")
    forwards = bits(answers(engine, prompts))
    assert bits(answers(engine, prompts[::-1]))[::-1] == forwards
    assert [bits(answers(engine, (prompt,)))[0] for prompt in prompts] == forwards


def test_attention_axis_changes_stock_arithmetic_and_is_reported(
    opened: Any, prompts: tuple[Prompt, ...]
) -> None:
    engines = {name: opened("bf16", attention=name) for name in ("default", "sdpa", "eager")}
    found = {name: bits(answers(engine, prompts)) for name, engine in engines.items()}
    assert found["default"] == found["sdpa"] != found["eager"]
    assert [engine.facts()["attention"] for engine in engines.values()] == ["sdpa", "sdpa", "eager"]


def test_kv_dtype_axis_changes_our_arithmetic_and_is_reported(
    opened: Any, prompts: tuple[Prompt, ...]
) -> None:
    engines = {name: opened("layercast", kv_dtype=name) for name in ("default", "fp32", "bf16")}
    found = {name: bits(answers(engine, prompts)) for name, engine in engines.items()}
    assert found["default"] == found["fp32"] != found["bf16"]
    kept_in = [engine.facts()["kv_dtype"] for engine in engines.values()]
    assert kept_in == ["float32", "float32", "bfloat16"]
    # In 16 bits too, an answer does not depend on how its prompt was computed.
    assert bits(answers(engines["bf16"], prompts, prefill_chunk=5)) == found["bf16"]


def draws(generator: str, seed: int = 3, index: int = 0) -> Draws:
    return Draws(0.7, 0.95, generator, seed=seed, batch_seed=batch_seed(seed, index))


def test_our_samples_depend_on_prompt_seed_and_sample_alone(
    opened: Any, prompts: tuple[Prompt, ...]
) -> None:
    engine, sampled = opened("layercast"), {"draws": draws("torch"), "sample_indices": (0, 0, 0, 1)}
    together = answers(engine, prompts, **sampled)
    assert {answer.seed for answer in together} == {3}
    alone = answers(engine, prompts[3:], draws=draws("torch", index=9), sample_indices=(1,))
    assert bits(alone)[0] == bits(together)[3]
    other = answers(engine, prompts[3:], draws=draws("torch"), sample_indices=(0,))
    assert bits(other)[0] != bits(together)[3]


def test_stock_samples_are_drawn_by_torch_seeded_once_a_batch(
    opened: Any, prompts: tuple[Prompt, ...]
) -> None:
    engine = opened("bf16")
    first = answers(engine, prompts, draws=draws("torch"))
    assert {answer.seed for answer in first} == {batch_seed(3, 0)}
    assert bits(answers(engine, prompts, draws=draws("torch"))) == bits(first)
    assert bits(answers(engine, prompts, draws=draws("torch", index=1))) != bits(first)
    # As transformers' own sampling draws: the same generator's state gives the same tokens.
    torch.manual_seed(batch_seed(3, 0))
    ids = torch.tensor([prompts[0].token_ids])
    own = engine._model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=0.7,
        top_p=0.95,
        top_k=0,
        max_new_tokens=12,
        pad_token_id=0,
        eos_token_id=0,
    )
    alone = answers(engine, prompts[:1], draws=draws("torch"))
    assert tuple(own[0, ids.shape[1] :].tolist()) == tuple(alone[0].token_ids)


def test_stock_samples_by_philox_draw_as_ours_do(opened: Any, prompts: tuple[Prompt, ...]) -> None:
    stock = answers(opened("fp32"), prompts, draws=draws("philox"))
    ours = answers(opened("layercast"), prompts, draws=draws("philox"))
    assert [answer.seed for answer in stock] == [answer.seed for answer in ours] == [3] * 4
    # Nearly the same logits and the same random numbers: the same tokens.
    assert [tuple(a.token_ids) for a in stock] == [tuple(a.token_ids) for a in ours]


def test_warm_prefix_of_single_tokens_is_nothing(opened: Any) -> None:
    assert warm_cache(opened("layercast")._model, [[5], [7]]) is None


def test_warm_prefix_of_a_sliding_window_is_refused() -> None:
    from transformers import Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=0,
    )
    with pytest.raises(UnsupportedError, match=r"`axes\.prefix_cache` must be cold"):
        warm_cache(Qwen2ForCausalLM(config).eval(), [[1, 2, 3, 4, 5, 6], [1, 2]])


def test_answers_hold_text_and_no_failure(opened: Any, prompts: tuple[Prompt, ...]) -> None:
    engine = opened("layercast")
    for answer in answers(engine, prompts):
        assert answer.text == engine.decode(answer.token_ids)
        assert (answer.failure, answer.attempts, answer.seed) == ("", 1, None)
    assert engine.new_pieces() == {}
    assert [field.name for field in dataclasses.fields(Answer)][:2] == ["text", "token_ids"]
