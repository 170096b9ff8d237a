"""An evaluation whose answers change with the batch size, and the line that ends it.

    python examples/fix_flaky_evaluation.py [MODEL] [--problems 16] [--tokens 256]

The same questions are asked at two batch sizes: with the model as transformers loads it, in
bfloat16, and as layercast loads it.
"""

from __future__ import annotations

import argparse

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import layercast
from layercast import testbed


def answers(
    model: PreTrainedModel, tokenizer, questions: list[str], batch_size: int, tokens: int
) -> list[str]:
    """Answer the questions greedily, so many at once."""
    found = []
    for start in range(0, len(questions), batch_size):
        chats = [[{"role": "user", "content": q}] for q in questions[start : start + batch_size]]
        inputs = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        generated = output[:, inputs["input_ids"].shape[1] :]
        found += tokenizer.batch_decode(generated, skip_special_tokens=True)
    return found


def main() -> None:
    """Print, for each way to load the model, how many answers the batch size changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=str(testbed.path()))
    parser.add_argument("--problems", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=256, help="longest answer")
    given = parser.parse_args()

    problems = testbed.problems(count=given.problems)
    questions = [problem.question for problem in problems]
    tokenizer = AutoTokenizer.from_pretrained(given.model, padding_side="left")
    loaded = {
        "stock bf16": AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.bfloat16),
        "layercast": layercast.load(given.model),  # the line that ends it
    }
    for name, model in loaded.items():
        one, many = (
            answers(model, tokenizer, questions, size, given.tokens) for size in (1, len(questions))
        )
        moved = sum(a != b for a, b in zip(one, many, strict=True))
        right = [
            sum(testbed.grade(text, p.answer) for text, p in zip(texts, problems, strict=True))
            for texts in (one, many)
        ]
        print(
            f"{name}: {moved} of {len(questions)} answers changed with the batch size; "
            f"{right[0]} right alone, {right[1]} in one batch"
        )


if __name__ == "__main__":
    main()
