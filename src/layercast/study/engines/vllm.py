"""vLLM as the engine, in the worker's process: stock at a dtype, or with LayerCast's operations.

A batch's requests are given at once; vLLM decides what shares a step. It starts the other ranks of
a tensor-parallel model itself.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from layercast import ops
from layercast.errors import CheckpointError
from layercast.integrations.transformers.config import QUANT_METHOD
from layercast.study.budget import VLLM_CACHE_BYTES
from layercast.study.engines.checkpoint_method import method_options, without_method
from layercast.study.engines.interface import Answer, BatchRequest, Draws, Facts, Opening
from layercast.study.engines.told_digests import digests_of
from layercast.study.engines.transformers import encode, pieces

__all__ = ["VllmEngine", "encode", "open_engine", "pieces"]

_STOCK_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_PAGE = 32  # tokens: only whole pages are found again in the prefix cache


def open_engine(opening: Opening) -> VllmEngine:
    """Load the model at a precision.

    Raises:
        BackendError: vLLM is missing or of a release that was not tested.
        CheckpointError: The model cannot be loaded.
    """
    from layercast.integrations.vllm.versions import check_version, installed_version

    check_version(installed_version())
    # The scheduler is reached in this process; threads are those the worker was started with.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    from vllm import LLM

    try:
        return VllmEngine(LLM(**_arguments(opening)), opening)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"vllm: the model in {opening.folder} must be one that vLLM can load at these "
            f"settings, got: {' '.join(str(error).split())[:500]}"
        ) from error


def _arguments(opening: Opening) -> dict[str, Any]:
    """Of `vllm.LLM`."""
    arguments: dict[str, Any] = {
        "model": str(opening.folder),
        "seed": 0,
        "max_logprobs": 100,
        "block_size": _PAGE,
        "enable_prefix_caching": True,
        "tensor_parallel_size": opening.tensor_parallel,
        "disable_log_stats": True,
        **opening.settings.vllm,
    }
    if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
        arguments.setdefault("kv_cache_memory_bytes", VLLM_CACHE_BYTES)
    if opening.precision != "layercast":
        stock = {"dtype": _STOCK_DTYPES[opening.precision], "hf_overrides": without_method}
        return {**arguments, **stock}
    method = {"quant_method": QUANT_METHOD, **method_options(opening.folder, opening.kv_dtype)}
    kv_dtype = method.get("kv_dtype", "float32")
    return {
        **arguments,
        "dtype": "float32",
        "quantization": QUANT_METHOD,
        "kv_cache_dtype": "auto" if kv_dtype == "float32" else kv_dtype,
        "hf_overrides": {"quantization_config": method},
    }


class VllmEngine:
    """A model in vLLM."""

    def __init__(self, llm: Any, opening: Opening) -> None:
        self._llm = llm
        self._precision = opening.precision
        self._ranks = opening.tensor_parallel
        self._tokenizer = AutoTokenizer.from_pretrained(opening.folder, local_files_only=True)
        self._ends = _end_of_sequence_ids(opening, self._tokenizer)
        self._labels = itertools.count()

    def facts(self) -> Facts:
        """Return the state of this process that bears on the bits."""
        from layercast.integrations.vllm.offline import guarantee

        ours = self._precision == "layercast"
        config = self._llm.llm_engine.vllm_config
        kept_in = str(config.cache_config.cache_dtype)
        dtype = str(config.model_config.dtype).removeprefix("torch.")
        return {
            "engine": "vllm",
            "arithmetic": "layercast" if ours else "stock",
            "guarantee": guarantee(self._llm) if ours else "none",
            "attention": "layercast" if ours else "vllm",
            "kv_dtype": dtype if kept_in == "auto" else kept_in,
            "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "layercast_isa": ops.isa() if ours else None,
            "ranks": self._ranks,
            "torch_threads": torch.get_num_threads(),
            "flush_denormal": torch.tensor(1e-40).mul(1.0).item() == 0.0,
            "max_num_seqs": config.scheduler_config.max_num_seqs,
            "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "vllm": _version(),
            "vocab_size": int(config.model_config.get_vocab_size()),
            "eos_token_ids": list(self._ends),
        }

    def answer(self, request: BatchRequest, on_step: Callable[[int], None]) -> list[Answer]:
        """Answer one batch; see `Engine.answer`."""
        from layercast.integrations.vllm.offline import limit_step

        limit_step(self._llm, request.prefill_chunk)
        self._llm.reset_prefix_cache()
        prompts = [{"prompt_token_ids": list(prompt.token_ids)} for prompt in request.prompts]
        if request.warm_prefix:
            for prompt in prompts:
                self._generate([prompt], [{"max_tokens": 1, "temperature": 0.0}])
        labels = [str(next(self._labels)) for _ in prompts]
        parameters = [
            self._parameters(request, index, label)
            for index, label in zip(request.sample_indices, labels, strict=True)
        ]
        outputs = self._generate(prompts, parameters)
        on_step(sum(len(output.outputs[0].token_ids) for output in outputs))
        rows: dict[str, list[int]] = {}
        if self._precision == "layercast":
            # Every rank has them all.
            rows = self._llm.collective_rpc("layercast_digests")[0]
        return [
            self._answer(output.outputs[0], request.top_k, p.get("seed"), rows.get(label))
            for output, p, label in zip(outputs, parameters, labels, strict=True)
        ]

    def _generate(self, prompts: list[Any], parameters: list[dict[str, Any]]) -> list[Any]:
        from vllm import SamplingParams

        settings = [
            SamplingParams(
                detokenize=False, ignore_eos=True, stop_token_ids=list(self._ends), **each
            )
            for each in parameters
        ]
        outputs: list[Any] = self._llm.generate(prompts, settings, use_tqdm=False)
        return outputs

    def _parameters(self, request: BatchRequest, index: int, label: str) -> dict[str, Any]:
        draws = request.draws
        parameters: dict[str, Any] = {
            "max_tokens": request.max_new_tokens,
            "logprobs": request.top_k,
            **({"temperature": 0.0} if draws is None else self._drawing(draws, index)),
        }
        if self._precision == "layercast":
            parameters["extra_args"] = {
                "layercast_digests": label,
                "layercast_sample_index": index,
            }
        return parameters

    def _drawing(self, draws: Draws, index: int) -> dict[str, Any]:
        """Stock vLLM has a generator of torch for each request: samples follow in their seeds."""
        ours = self._precision == "layercast"
        return {
            "temperature": draws.temperature,
            "top_p": draws.top_p,
            "seed": draws.seed if ours else (draws.seed + index) % 2**63,
        }

    def _answer(
        self, completion: Any, top_k: int, seed: int | None, rows: list[int] | None
    ) -> Answer:
        ids = list(completion.token_ids)
        chosen = np.empty(len(ids), dtype=np.float32)
        top_ids = np.empty((len(ids), top_k), dtype=np.int32)
        top_logprobs = np.empty((len(ids), top_k), dtype=np.float32)
        for position, (token, entry) in enumerate(zip(ids, completion.logprobs, strict=True)):
            chosen[position] = entry[token].logprob
            best = sorted((-told.logprob, other) for other, told in entry.items())[:top_k]
            top_ids[position] = [other for _, other in best]
            top_logprobs[position] = [-negated for negated, _ in best]
        return Answer(
            text=str(self._tokenizer.decode(ids, skip_special_tokens=True)),
            token_ids=ids,
            logprobs=chosen,
            top_ids=top_ids,
            top_logprobs=top_logprobs,
            digests=digests_of(chosen, top_ids, top_logprobs)
            if rows is None
            else np.array(rows, dtype=np.uint64),
            finish_reason=str(completion.finish_reason),
            seed=seed,
        )

    def new_pieces(self) -> dict[int, bytes]:
        """Return nothing: the tokenizer knows every token."""
        return {}


def _end_of_sequence_ids(opening: Opening, tokenizer: Any) -> Sequence[int]:
    """As the engine transformers reads them, so that answers end alike."""
    try:
        declared = GenerationConfig.from_pretrained(
            opening.folder, local_files_only=True
        ).eos_token_id
    except OSError:
        config = AutoConfig.from_pretrained(opening.folder, local_files_only=True)
        declared = GenerationConfig.from_model_config(config).eos_token_id
    declared = tokenizer.eos_token_id if declared is None else declared
    if declared is None:
        return ()
    return (declared,) if isinstance(declared, int) else tuple(sorted(declared))


def _version() -> str:
    from layercast.integrations.vllm.versions import installed_version

    return f"{installed_version()} with layercast {metadata.version('layercast')}"
