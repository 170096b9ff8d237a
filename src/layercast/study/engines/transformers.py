"""The engine on one machine: transformers, stock at a dtype or with LayerCast's operations."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

import layercast
from layercast import ops
from layercast.auditing import guarantee
from layercast.errors import CheckpointError
from layercast.integrations.transformers.generation import (
    end_of_sequence_ids,
    generate,
    padding_id,
)
from layercast.integrations.transformers.sampling import Sampling
from layercast.study.engines.interface import Facts, Generation, Prompt
from layercast.study.vocabulary import token_pieces

_STOCK_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def encode(
    model_path: Path, conversations: Sequence[list[dict[str, str]]], *, raw: bool = False
) -> list[Prompt]:
    """Apply the model's chat template to each conversation.

    A model without a chat template (a base model) gets the contents of the messages as they are.

    Args:
        model_path: Folder with the tokenizer.
        conversations: The messages of each.
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


def pieces(model_path: Path) -> list[bytes]:
    """Return the bytes each token of the model's tokenizer stands for, by token id.

    Raises:
        CheckpointError: the folder holds no tokenizer that can be loaded.
    """
    return token_pieces(_tokenizer(model_path))


def open_engine(model_path: Path, *, precision: str, threads: int) -> TransformersEngine:
    """Load the model at a precision, on `threads` threads of this process.

    Raises:
        CheckpointError: the model cannot be loaded.
    """
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    # Off in stock PyTorch too; said here so that no default can change it.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    tokenizer = _tokenizer(model_path)
    if precision == "layercast":
        model = layercast.load(model_path, local_files_only=True)
    else:
        model = _load_stock(model_path, _STOCK_DTYPES[precision])
    return TransformersEngine(model.eval(), tokenizer, precision)


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
        return {
            "engine": "transformers",
            "arithmetic": "layercast" if ours else "stock",
            # Found out by running the model, not taken from its label.
            "guarantee": guarantee(self._model) if ours else "none",
            "attention": str(self._model.config._attn_implementation),
            "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "layercast_isa": ops.isa() if ours else None,
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

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        top_k: int,
        on_step: Callable[[int], None],
        sampling: Sampling | None = None,
        sample_indices: Sequence[int] | None = None,
    ) -> Sequence[Generation]:
        """Answer one left-padded batch, greedily or by sampling; see `Engine.generate`."""
        return generate(
            self._model,
            prompts,
            max_new_tokens=max_new_tokens,
            top_k=top_k,
            eos_token_ids=self._eos,
            pad_token_id=self._pad,
            on_step=on_step,
            sampling=sampling,
            sample_indices=sample_indices,
        )

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of generated tokens, without special tokens."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))


def _load_stock(model_path: Path, dtype: torch.dtype) -> Any:
    try:
        return AutoModelForCausalLM.from_pretrained(
            model_path,
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, SafetensorError) as error:
        files = ", ".join(sorted(file.name for file in model_path.glob("*.safetensors")))
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"open_engine: `{model_path}` must hold a readable checkpoint, got {reason} "
            f"(weights: {files or 'none'}). Fetch the model again."
        ) from error


def _tokenizer(model_path: Path) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        return AutoTokenizer.from_pretrained(
            model_path, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"open_engine: `{model_path}` must hold a tokenizer, got: "
            f"{str(error).strip().splitlines()[0]}. Add tokenizer.json and tokenizer_config.json."
        ) from error
