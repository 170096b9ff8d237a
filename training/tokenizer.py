"""The bundled model's tokenizer: Qwen2's own, every digit a token, with a small vocabulary."""

from __future__ import annotations

import json
from collections.abc import Iterable

from transformers import Qwen2Tokenizer

END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen's chat format, without a date or a default system message: a prompt is its problem."""


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Qwen2Tokenizer:
    """Train byte-level BPE on `texts` with Qwen2's pre-tokenizer, the one every tool gives a Qwen2.

    Args:
        texts: What the vocabulary is made for.
        vocabulary: Entries, special tokens included.
    """
    tokenizer: Qwen2Tokenizer = Qwen2Tokenizer().train_new_from_iterator(
        texts, vocabulary, new_special_tokens=[START, STOP], show_progress=False
    )
    return Qwen2Tokenizer(
        vocab=tokenizer.get_vocab(),
        merges=_merges(tokenizer),
        eos_token=STOP,
        pad_token=END,
        unk_token=None,
        additional_special_tokens=[START],
        model_max_length=2048,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )


def _merges(tokenizer: Qwen2Tokenizer) -> list[tuple[str, str]]:
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return [tuple(merge) for merge in merges]
