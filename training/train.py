"""Train the bundled model on generated stories and write it as a Hugging Face checkpoint.

    python training/train.py --out src/layercast/testbed/checkpoint --minutes 44 --threads 1

Stories are generated as they are needed from the train split, so no example comes twice. The
figures of the run are written to `training_log.json` beside the weights.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from layercast.testbed.problems import stories
from solutions import solve
from tokenizer import train_tokenizer

BATCH = 16
LOOKAHEAD = 16
PEAK_LEARNING_RATE = 2e-3
WARMUP_STEPS = 150
VOCABULARY = 640


def model_config(tokenizer: Qwen2Tokenizer) -> Qwen2Config:
    """Return the architecture: Qwen2 with grouped heads, a tied head, about 2.9 M parameters."""
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def examples(tokenizer: Qwen2Tokenizer) -> Iterator[tuple[list[int], int]]:
    """Yield (token ids of prompt and answer, length of the prompt), endlessly."""
    wording = random.Random("layercast testbed wording 1")
    for story in stories("train"):
        chat = [{"role": "user", "content": story.question}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        prompt_ids = tokenizer(prompt).input_ids
        answer_ids = tokenizer(solve(story, wording)).input_ids
        yield [*prompt_ids, *answer_ids, tokenizer.eos_token_id], len(prompt_ids)


def batches(tokenizer: Qwen2Tokenizer) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (ids, labels) of shape (BATCH, T); the prompt and the padding carry label -100.

    Examples of like length share a batch, so that little is spent on padding.
    """
    source = examples(tokenizer)
    order = random.Random("layercast testbed order 1")
    while True:
        pool = sorted(islice(source, BATCH * LOOKAHEAD), key=lambda example: len(example[0]))
        groups = [pool[i : i + BATCH] for i in range(0, len(pool), BATCH)]
        order.shuffle(groups)
        for group in groups:
            length = max(len(ids) for ids, _ in group)
            ids = torch.full((BATCH, length), tokenizer.pad_token_id)
            labels = torch.full((BATCH, length), -100)
            for row, (tokens, prompt) in enumerate(group):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                labels[row, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
            yield ids, labels


def make_optimizers(model: Qwen2ForCausalLM) -> list[torch.optim.Optimizer]:
    """Return Muon for the layers' matrices and AdamW for embedding, biases and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def learning_rate(step: int, done: float) -> float:
    """Warm up linearly, then follow a cosine over the share of the time that is `done`."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return PEAK_LEARNING_RATE * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1, done))))


def save(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, out: Path) -> None:
    """Write config, bf16 weights, tokenizer, chat template and generation config to `out`."""
    half = Qwen2ForCausalLM(model.config).to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    half.tie_weights()
    half.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    half.save_pretrained(out)
    tokenizer.save_pretrained(out)


def train(out: Path, minutes: float, threads: int) -> None:
    """Train for `minutes` of wall time on `threads` threads; write checkpoint and log to `out`."""
    torch.manual_seed(20250611)
    torch.set_num_threads(threads)
    sample = random.Random("layercast testbed tokenizer 1")
    texts = [f"{s.question}\n{solve(s, sample)}\nuser\nassistant"
             for s in islice(stories("train"), 8000)]  # fmt: skip
    tokenizer = train_tokenizer(texts, VOCABULARY)
    model = Qwen2ForCausalLM(model_config(tokenizer)).train()
    optimizers = make_optimizers(model)
    log: list[dict[str, float]] = []
    start, step, tokens, smooth = time.monotonic(), 0, 0, 0.0
    for ids, labels in batches(tokenizer):
        done = (time.monotonic() - start) / (60 * minutes)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, done)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids[:, :-1]).logits
        targets = labels[:, 1:].reshape(-1)
        loss = cross_entropy(logits.float().reshape(len(targets), -1), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step, tokens = step + 1, tokens + int((targets != -100).sum())
        smooth = loss.item() if step == 1 else 0.98 * smooth + 0.02 * loss.item()
        if step % 50 == 0 or done >= 1:
            log.append({"step": step, "minutes": round(done * minutes, 2), "answer_tokens": tokens,
                        "loss": round(smooth, 4)})  # fmt: skip
            print(log[-1], flush=True)
        if step % 500 == 0 or done >= 1:
            save(model, tokenizer, out)
            figures = {"examples": step * BATCH, "minutes": minutes, "threads": threads,
                       "parameters": sum(p.numel() for p in model.parameters()),
                       "torch": torch.__version__, "steps": log}  # fmt: skip
            (out / "training_log.json").write_text(json.dumps(figures, indent=1) + "\n")
        if done >= 1:
            return


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=44)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    train(options.out, options.minutes, options.threads)
