"""Evaluate the bundled model on held-out problems with stock transformers, and keep the figures.

    python training/evaluate.py src/layercast/testbed/checkpoint --problems 256 --threads 1

Writes `evaluation.json` beside the weights: greedy accuracy and answer length in FP32 and bf16, and
how many answers part ways between batch 8 and batch 32.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from layercast.testbed import Problem, grade, problems

MAX_NEW_TOKENS = 512
BATCHES = (8, 32)


@torch.inference_mode()
def answers(folder: Path, dtype: torch.dtype, batch: int, asked: list[Problem]) -> list[list[int]]:
    """Answer greedily in left-padded batches; return each answer's ids, its end included."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    found: list[list[int]] = []
    for first in range(0, len(asked), batch):
        chats = [[{"role": "user", "content": p.question}] for p in asked[first : first + batch]]
        inputs = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        out = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS)
        for row in out[:, inputs["input_ids"].shape[1] :].tolist():
            stop = row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else None
            found.append(row[:stop])
    return found


def evaluate(folder: Path, count: int) -> dict[str, object]:
    """Return the figures of `folder` on the first `count` problems of the test split."""
    asked = problems("test", count)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    figures: dict[str, object] = {"problems": count, "torch": torch.__version__,
                                  "threads": torch.get_num_threads()}  # fmt: skip
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        start = time.monotonic()
        by_batch = {batch: answers(folder, dtype, batch, asked) for batch in BATCHES}
        texts = tokenizer.batch_decode(by_batch[8], skip_special_tokens=True)
        right = sum(grade(text, p.answer) for text, p in zip(texts, asked, strict=True))
        parted = sum(a != b for a, b in zip(by_batch[8], by_batch[32], strict=True))
        figures[name] = {
            "accuracy_percent": round(100 * right / count, 2),
            "mean_answer_tokens": round(sum(map(len, by_batch[8])) / count, 1),
            "unfinished": sum(a[-1] != tokenizer.eos_token_id for a in by_batch[8]),
            "diverging_batch_8_to_32_percent": round(100 * parted / count, 2),
            "seconds": round(time.monotonic() - start, 1),
        }
        print(name, figures[name], flush=True)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--problems", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="print the figures, write nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = evaluate(options.checkpoint, options.problems)
    if not options.dry:
        path = options.checkpoint / "evaluation.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
