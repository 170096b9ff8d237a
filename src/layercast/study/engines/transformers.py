"""The engine on one machine: transformers, stock at a dtype or with LayerCast's operations."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import layercast
from layercast import ops
from layercast.auditing import guarantee
from layercast.errors import CheckpointError, first_line
from layercast.integrations.transformers.config import LayerCastConfig, cache_dtype_of
from layercast.integrations.transformers.generation import (
    Generation,
    end_of_sequence_ids,
    generate,
    padding_id,
)
from layercast.integrations.transformers.sampling import Sampling
from layercast.study.engine_settings import EngineSettings
from layercast.study.engines.checkpoint_method import method_options, without_method
from layercast.study.engines.interface import Answer, BatchRequest, Draws, Facts, Opening, Prompt
from layercast.study.engines.prefixes import warm_cache
from layercast.study.engines.torch_draws import TorchSampling
from layercast.study.vocabulary import token_pieces

_STOCK_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_ATTENTION = {"default": "sdpa"}


def encode(
    model_path: Path | None,
    conversations: Sequence[list[dict[str, str]]],
    settings: EngineSettings | None = None,
    *,
    raw: bool = False,
) -> list[Prompt]:
    """Apply the model's chat template to each conversation.

    A model without a chat template (a base model) gets the contents of the messages as they are.

    Args:
        model_path: Folder with the tokenizer.
        conversations: The messages of each.
        settings: Of the plan; nothing in them changes a prompt here.
        raw: Leave the chat template out where there is one, too.

    Raises:
        CheckpointError: the folder holds no tokenizer that can be loaded.
    """
    tokenizer = _tokenizer(model_path)
    prompts = []
    for messages in conversations:
        if tokenizer.chat_template and not raw:
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            text = "\n\n".join(message["content"] for message in messages)
            ids = tokenizer(text)["input_ids"]
        prompts.append(Prompt(text, tuple(ids)))
    return prompts


def pieces(model_path: Path | None) -> list[bytes]:
    """Return the bytes each token of the model's tokenizer stands for, by token id.

    Raises:
        CheckpointError: the folder holds no tokenizer that can be loaded.
    """
    return token_pieces(_tokenizer(model_path))


def open_engine(opening: Opening) -> TransformersEngine:
    """Load the model at a precision, on `opening.threads` threads of this process.

    Raises:
        CheckpointError: the model cannot be loaded.
    """
    torch.set_num_threads(opening.threads)
    torch.set_grad_enabled(False)
    # Off in stock PyTorch too; said here so that no default can change it.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    folder = opening.folder
    tokenizer = _tokenizer(folder)
    if opening.precision == "layercast":
        options = LayerCastConfig(**method_options(folder, opening.kv_dtype))
        model = layercast.load(
            folder, local_files_only=True, quantization_config=options, **_ranks(opening)
        )
    else:
        model = _load_stock(opening)
    return TransformersEngine(model.eval(), tokenizer, opening.precision)


class TransformersEngine:
    """A causal language model of transformers in this process."""

    def __init__(self, model: Any, tokenizer: Any, precision: str) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._precision = precision
        self._eos = end_of_sequence_ids(model, tokenizer)
        self._pad = padding_id(model, tokenizer)

    def facts(self) -> Facts:
        """Return the state of this process that bears on the bits."""
        ours = self._precision == "layercast"
        kept_in = cache_dtype_of(self._model.config) if ours else self._model.dtype
        return {
            "engine": "transformers",
            "arithmetic": "layercast" if ours else "stock",
            # Found out by running the model, not taken from its label.
            "guarantee": guarantee(self._model) if ours else "none",
            "attention": str(self._model.config._attn_implementation),
            "kv_dtype": str(kept_in).removeprefix("torch."),
            "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "layercast_isa": ops.isa() if ours else None,
            "ranks": torch.distributed.get_world_size()
            if torch.distributed.is_initialized()
            else 1,
            "torch_threads": torch.get_num_threads(),
            "torch_interop_threads": torch.get_num_interop_threads(),
            "allow_tf32": bool(torch.backends.cuda.matmul.allow_tf32),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "flush_denormal": torch.tensor(1e-40).mul(1.0).item() == 0.0,
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "vocab_size": int(self._model.config.vocab_size),
            "eos_token_ids": list(self._eos),
        }

    def answer(self, request: BatchRequest, on_step: Callable[[int], None]) -> list[Answer]:
        """Answer one left-padded batch; see `Engine.answer`."""
        draws = request.draws
        drawn_by_philox = self._precision == "layercast" or (
            draws is not None and draws.generator == "philox"
        )
        prompts = [prompt.token_ids for prompt in request.prompts]
        generations = self.generate(
            prompts,
            max_new_tokens=request.max_new_tokens,
            top_k=request.top_k,
            on_step=on_step,
            sampling=None if draws is None else _sampling(draws, philox=drawn_by_philox),
            sample_indices=None if draws is None else request.sample_indices,
            prefill_chunk=request.prefill_chunk or None,
            cache=warm_cache(self._model, prompts) if request.warm_prefix else None,
        )
        seed = None
        if draws is not None:
            seed = draws.seed if drawn_by_philox else draws.batch_seed
        return [self._answer(generation, seed) for generation in generations]

    def _answer(self, generation: Generation, seed: int | None) -> Answer:
        return Answer(
            text=self.decode(generation.token_ids),
            token_ids=generation.token_ids,
            logprobs=generation.logprobs,
            top_ids=generation.top_ids,
            top_logprobs=generation.top_logprobs,
            digests=generation.digests,
            finish_reason=generation.finish_reason,
            seed=seed,
        )

    def generate(
        self, prompts: Sequence[Sequence[int]], *, top_k: int, max_new_tokens: int, **options: Any
    ) -> list[Generation]:
        """Answer one left-padded batch with the end and padding tokens of the checkpoint.

        Args:
            prompts: Token ids of each.
            top_k: Candidates kept at every position.
            max_new_tokens: Limit of generated tokens a prompt.
            **options: Of `layercast.integrations.transformers.generate`.
        """
        return generate(
            self._model,
            prompts,
            max_new_tokens=max_new_tokens,
            top_k=top_k,
            eos_token_ids=self._eos,
            pad_token_id=self._pad,
            **options,
        )

    def new_pieces(self) -> dict[int, bytes]:
        """Return nothing: the tokenizer knows every token."""
        return {}

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of generated tokens, without special tokens."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))


def _sampling(draws: Draws, *, philox: bool) -> Sampling:
    if philox:
        return Sampling(temperature=draws.temperature, top_p=draws.top_p, seed=draws.seed)
    return TorchSampling(temperature=draws.temperature, top_p=draws.top_p, seed=draws.batch_seed)


def _ranks(opening: Opening) -> dict[str, Any]:
    """Arguments of loading a model that several processes hold; none for one."""
    return {"tp_plan": "auto"} if opening.tensor_parallel > 1 else {}


def _load_stock(opening: Opening) -> Any:
    model_path = opening.folder
    try:
        config = AutoConfig.from_pretrained(
            model_path, local_files_only=True, trust_remote_code=False
        )
        return AutoModelForCausalLM.from_pretrained(
            model_path,
            config=without_method(config),
            dtype=_STOCK_DTYPES[opening.precision],
            attn_implementation=_ATTENTION.get(opening.attention, opening.attention),
            local_files_only=True,
            trust_remote_code=False,
            **_ranks(opening),
        )
    except (OSError, ValueError, SafetensorError) as error:
        files = ", ".join(sorted(file.name for file in model_path.glob("*.safetensors")))
        reason = first_line(error)
        raise CheckpointError(
            f"open_engine: `{model_path}` must hold a readable checkpoint, got {reason} "
            f"(weights: {files or 'none'}). Fetch the model again."
        ) from error


def _tokenizer(model_path: Path | None) -> Any:
    assert model_path is not None, "an engine on this machine has a model's folder"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        return AutoTokenizer.from_pretrained(
            model_path, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"open_engine: `{model_path}` must hold a tokenizer, got: "
            f"{first_line(error)}. Add tokenizer.json and tokenizer_config.json."
        ) from error
