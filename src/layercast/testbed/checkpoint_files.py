"""Where the bundled checkpoint lies."""

from __future__ import annotations

from pathlib import Path


def path() -> Path:
    """Return the bundled checkpoint's folder: standard Hugging Face files, bf16 safetensors."""
    return Path(__file__).resolve().parent / "checkpoint"
