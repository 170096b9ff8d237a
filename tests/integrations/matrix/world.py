"""Runs the matrix in groups of tensor-parallel processes and prints what came out, as JSON.

One group a world size serves all architectures. Python and its libraries are imported once, then
the ranks are forked from here, one group after another.
Arguments: world sizes, joined by commas; architectures whose stock model is run too, likewise;
then `architecture=folder` for each checkpoint.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from forward_variants import SEQUENCES, alone
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

import layercast
from layercast import ops
from layercast.errors import LayercastError
from matrix.axes import AXES
from matrix.decodings import decodings
from matrix.groups import everyones, run_group
from matrix.process import digest, rows_digest, stock_subject
from matrix.subject import Subject

# Every architecture generates in the smallest group, these in all: eight ranks on two cores spend
# their time waiting for each other.
GENERATE_EVERYWHERE = ("llama", "gemma3", "qwen3_moe", "phi3")
DECODE_IN_EVERY_WAY = ("llama", "qwen2")


def load(folder: Path) -> torch.nn.Module:
    return layercast.load(folder, tp_plan="auto")


def measure(folder: Path, *, generates: bool, decodes: bool) -> dict:
    """What one rank makes of a checkpoint: digests, tokens and counts, or its refusal."""
    try:
        model = load(folder)
    except LayercastError as error:
        return {"refused": type(error).__name__, "message": str(error)}
    subject = Subject(model, ops.log_softmax)
    result = {
        "digest": digest(subject),
        "misordered": misordered_digest(subject),
        "elements": sum(p.numel() for p in model.parameters()),
        "dtypes": sorted({str(p.dtype) for p in model.parameters()}),
    }
    if generates:  # left-padded, through two caches, of which the static one is sized by heads
        tokens = model.generate(SEQUENCES[2][None, :9], max_new_tokens=6, do_sample=False)
        result["tokens"] = tokens[0].tolist()
        result["generation"] = subject.count(AXES["generation"])
    if decodes:
        result["decodings"] = decodings(model)
        result["continuous_batching"] = subject.count(AXES["continuous_batching"])
    return result


def misordered_digest(subject: Subject) -> list[str]:
    """Digests of the first sequence, as it is and with the ranks' parts added one by one."""

    def in_order_of_ranks(parts, bias=None):
        total, *rest = parts
        for part in rest:
            total = total + part
        return total if bias is None else total + bias.float()

    tree, ops.join_parts = ops.join_parts, in_order_of_ranks
    try:
        other = subject.log_softmax(alone(subject.model, SEQUENCES[0]))
    finally:
        ops.join_parts = tree
    return [rows_digest([rows]) for rows in (subject.expected[0], other)]


def measure_stock(folder: Path, size: int) -> str:
    """Digest of the stock model held by the same processes."""
    one = stock_subject(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        distributed_config=DistributedConfig(tp_size=size, tp_plan="auto"),
    )
    return digest(Subject(model, one.log_softmax))


def run(stock: list[str], checkpoints: list[str]) -> dict:
    """What every rank found of each checkpoint."""
    size = dist.get_world_size()
    result: dict = {"ranks": {}, "stock": {}}
    for checkpoint in checkpoints:
        name, folder = checkpoint.split("=", 1)
        generates = size == 2 or name in GENERATE_EVERYWHERE
        decodes = size == 2 and name in DECODE_IN_EVERY_WAY
        found = measure(Path(folder), generates=generates, decodes=decodes)
        result["ranks"][name] = everyones(found)
        if name in stock:
            result["stock"][name] = measure_stock(Path(folder), size)
    return result


def main() -> None:
    sizes, stock, *checkpoints = sys.argv[1:]
    torch.set_num_threads(1)  # no pool of threads, which would not survive a fork
    for checkpoint in checkpoints:  # what loading imports is there in every rank then
        layercast.load(checkpoint.split("=", 1)[1])
    for size in sizes.split(","):
        result = run_group(int(size), run, stock.split(","), checkpoints)
        print(json.dumps({"size": int(size), **result}), flush=True)


if __name__ == "__main__":
    main()
