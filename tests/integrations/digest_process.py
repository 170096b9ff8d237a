"""Prints, as JSON, digests of what each checkpoint computes in this process.

One process serves all architectures: the instruction set is chosen by the environment at start.
Arguments: the number of threads, then `architecture=folder` for each checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch
from forward_variants import SEQUENCES, in_batch
from transformers import AutoModelForCausalLM

import layercast
from layercast import ops
from layercast.integrations.transformers import generate

PROMPTS = [tokens[:20].tolist() for tokens in SEQUENCES[:4]]


def digests(model) -> dict[str, str | list[int]]:
    logits = in_batch(model, SEQUENCES[:4], side="left")
    joined = b"".join(part.float().contiguous().numpy().tobytes() for part in logits)
    answers = generate(model, PROMPTS, max_new_tokens=12)
    return {
        "logits": hashlib.sha256(joined).hexdigest(),
        "logprobs": [int(digest) for answer in answers for digest in answer.digests],
    }


def main() -> None:
    threads, *checkpoints = sys.argv[1:]
    torch.set_num_threads(int(threads))
    result: dict = {"isa": ops.isa(), "layercast": {}}
    for checkpoint in checkpoints:
        name, folder = checkpoint.split("=", 1)
        result["layercast"][name] = digests(layercast.load(Path(folder)))
    # The control; one architecture is enough, and eager attention runs on every instruction set.
    stock = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    result["stock"] = digests(stock)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
