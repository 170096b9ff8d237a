"""Contract under test: the bundled checkpoint is what its figures say, in standard files."""

import json

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer

from layercast.testbed import path, problems


def test_checkpoint_is_small_bf16_and_standard():
    files = {file.name for file in path().iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= files
    assert sum(file.stat().st_size for file in path().iterdir()) <= 16 * 2**20
    config = AutoConfig.from_pretrained(path())
    assert config.model_type == "qwen2"
    with safe_open(path() / "model.safetensors", "pt") as tensors:
        dtypes = {tensors.get_tensor(name).dtype for name in tensors.keys()}  # noqa: SIM118
    assert dtypes == {torch.bfloat16}


def test_tokenizer_round_trips_and_keeps_digits_apart():
    tokenizer = AutoTokenizer.from_pretrained(path())
    for problem in problems("test", 64):
        ids = tokenizer(problem.question).input_ids
        assert tokenizer.decode(ids) == problem.question
    digits = tokenizer("7*114=798").input_ids
    assert [tokenizer.decode([i]) for i in digits] == list("7*114=798")


def test_chat_template_holds_nothing_but_the_problem():
    tokenizer = AutoTokenizer.from_pretrained(path())
    chat = [{"role": "user", "content": "Hello"}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_evaluation_on_record_is_a_fair_miniature():
    # The figures of training/evaluate.py on this checkpoint, held-out problems, stock transformers.
    figures = json.loads((path() / "evaluation.json").read_text())
    assert figures["problems"] >= 256
    assert 60 <= figures["fp32"]["accuracy_percent"] <= 95
    assert figures["fp32"]["mean_answer_tokens"] >= 150
    assert figures["bf16"]["diverging_batch_8_to_32_percent"] >= 20
