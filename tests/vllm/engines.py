"""Engines of vLLM for the tests: each runs in a process of its own, and none twice alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_PROCESS = Path(__file__).with_name("engine_process.py")
_SECONDS = 300

LAYERCAST = {"quantization": "layercast", "dtype": "float32"}
STOCK = {"dtype": "float32"}


@dataclass(frozen=True)
class Engine:
    """Settings of an engine.

    Attributes:
        model: Folder of the checkpoint.
        options: Of `vllm.LLM`, beyond what all engines here have.
        environment: Variables, beyond the same.
    """

    model: Path
    options: dict[str, Any] = field(default_factory=lambda: dict(LAYERCAST))
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, folder: Path, *rounds: list[dict]) -> dict:
        """Answer rounds of requests, one after the other, and end.

        Args:
            folder: For the files that are exchanged.
            *rounds: Requests that are given at once; see `greedy` and `sampled`.
        """
        status, result, log = self.attempt(folder, *rounds)
        assert status == 0, log[-6000:]
        return result

    def attempt(self, folder: Path, *rounds: list[dict]) -> tuple[int, dict, str]:
        """Exit status, result and what was logged."""
        folder.mkdir(parents=True, exist_ok=True)
        job, result = folder / "job.json", folder / "result.json"
        options = {
            "model": str(self.model),
            "max_model_len": 512,
            "max_num_seqs": 16,
            "disable_log_stats": False,
            "seed": 0,
            **self.options,
        }
        environment = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            **self.environment,
        }
        job.write_text(
            json.dumps({"options": options, "environment": environment, "rounds": rounds})
        )
        done = subprocess.run(
            [sys.executable, str(_PROCESS), str(job), str(result)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        return (
            done.returncode,
            json.loads(result.read_text()) if done.returncode == 0 else {},
            done.stdout,
        )


def greedy(prompt: list[int], *, tokens: int = 32, **sampling: Any) -> dict:
    """A request, with the five best log-probabilities."""
    return {
        "prompt": prompt,
        "sampling": {
            "temperature": 0.0,
            "max_tokens": tokens,
            "logprobs": 5,
            "detokenize": False,
            **sampling,
        },
    }


def sampled(prompt: list[int], seed: int | None, **sampling: Any) -> dict:
    """A request that draws at temperature 0.9."""
    return greedy(prompt, **{"temperature": 0.9, "seed": seed, **sampling})


def bits(values: list[float]) -> list[int]:
    """Of float32 values, as integers."""
    return np.asarray(values, dtype=np.float32).view(np.int32).tolist()


def outcome(answer: dict) -> list:
    """What must not differ: tokens, and the bits of all log-probabilities told."""
    return [
        [
            sample["tokens"],
            bits(sample["logprobs"]),
            [
                [[token for token, _ in entry], bits([p for _, p in entry])]
                for entry in sample["top"]
            ],
        ]
        for sample in answer["samples"]
    ]


def outcomes(answers: list[dict]) -> list:
    return [outcome(answer) for answer in answers]
