"""A decode step of vLLM on a CPU, layercast against stock: milliseconds, by concurrency.

    python benchmarks/vllm_decode.py VARIANT [--out FILE]

VARIANT is layercast, bf16 or fp32; each is measured in a process of its own, one after the other on
a quiet machine. The model has the shape of Qwen2.5-0.5B and random weights. A step is what one more
token of every request takes: two generations of different lengths are timed in turns, so that
prefill and starting up fall out of their difference. Run it in the environment of `make test-vllm`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

VARIANTS = {
    "layercast": {"dtype": "float32", "quantization": "layercast"},
    "bf16": {"dtype": "bfloat16"},
    "fp32": {"dtype": "float32"},
}
CONCURRENCY = (1, 8, 32)
PROMPT_TOKENS = 32
SHORT, LONG = 4, 20
REPEATS = 5


def main() -> None:
    """Measure a variant and write its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--checkpoint", type=Path, help="made here where it is missing")
    parser.add_argument("--out", type=Path, help="JSON; standard output if left out")
    arguments = parser.parse_args()
    record = measure(arguments.variant, checkpoint(arguments.checkpoint))
    text = json.dumps(record, indent=1) + "\n"
    if arguments.out is None:
        print(text, end="")
    else:
        arguments.out.write_text(text, encoding="utf-8")


def checkpoint(folder: Path | None) -> Path:
    """Return a random checkpoint, made once."""
    from layercast.bench.checkpoint import save_random_checkpoint

    folder = folder or Path(tempfile.gettempdir()) / "layercast-vllm-decode"
    return folder if (folder / "config.json").exists() else save_random_checkpoint(folder)


def measure(variant: str, folder: Path) -> dict:
    """Load the model and time it at each concurrency."""
    import torch

    from layercast import ops
    from layercast.integrations.vllm.versions import installed_version
    from vllm import LLM

    llm = LLM(
        str(folder),
        skip_tokenizer_init=True,
        max_model_len=512,
        max_num_seqs=max(CONCURRENCY),
        enable_prefix_caching=False,
        seed=0,
        **VARIANTS[variant],
    )
    steps = {str(requests): step_milliseconds(llm, requests) for requests in CONCURRENCY}
    return {
        "variant": variant,
        "milliseconds_a_step": steps,
        "prompt_tokens": PROMPT_TOKENS,
        "threads": torch.get_num_threads(),
        "layercast_isa": ops.isa() if variant == "layercast" else None,
        "cpu": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "vllm": installed_version(),
    }


def step_milliseconds(llm, requests: int) -> dict[str, float]:
    """Median, and the least and greatest."""
    timed = []
    generate(llm, requests, SHORT)
    for _ in range(REPEATS):
        short, long = (generate(llm, requests, tokens) for tokens in (SHORT, LONG))
        timed.append(1000.0 * (long - short) / (LONG - SHORT))
    return {
        "median": round(statistics.median(timed), 2),
        "least": round(min(timed), 2),
        "greatest": round(max(timed), 2),
    }


def generate(llm, requests: int, tokens: int) -> float:
    """Seconds to answer so many requests at once."""
    from vllm import SamplingParams

    prompts = [
        {"prompt_token_ids": [(97 * (r + 1) + 13 * i) % 150_000 for i in range(PROMPT_TOKENS)]}
        for r in range(requests)
    ]
    sampling = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False)
    start = time.perf_counter()
    llm.generate(prompts, sampling, use_tqdm=False)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
