"""Where a plan's model lies, and which bytes it is made of."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from layercast.errors import CheckpointError, PlanError

# What decides a model's answers: weights, configuration, tokenizer, chat template.
_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")


def locate(model: str) -> Path:
    """Return the folder with a model's files.

    Args:
        model: ``testbed`` for the bundled model, a folder, or a name on the Hugging Face hub,
            which is downloaded unless it is in the local cache.

    Raises:
        PlanError: there is no such folder or it holds no model, or the hub does not give it.
    """
    if model == "testbed":
        # The bundled checkpoint is found without importing torch.
        from layercast import testbed

        folder = testbed.path()
    else:
        folder = Path(model).expanduser()
        if not folder.is_dir():
            if model.startswith(("/", ".", "~")) or model.count("/") != 1:
                raise _missing(model, "no such folder")
            folder = _download(model)
    if not (folder / "config.json").is_file():
        raise _missing(model, f"no config.json in {folder}")
    return folder.resolve()


def digest_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file that decides a model's answers.

    Args:
        folder: From `locate`.

    Returns:
        By file name, sorted: ``{"bytes": ..., "sha256": ...}``.

    Raises:
        CheckpointError: a file cannot be read.
    """
    names = sorted({path.name for pattern in _PATTERNS for path in folder.glob(pattern)})
    digests = {}
    for name in names:
        try:
            with (folder / name).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                digests[name] = {"bytes": file.tell(), "sha256": sha256}
        except OSError as error:
            raise CheckpointError(
                f"digest_files: `{folder / name}` must be readable, got: {error.strerror}. "
                "Mend its permissions or fetch the model again."
            ) from error
    return digests


def _download(name: str) -> Path:
    # Imported here: only a model from the hub needs it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_PATTERNS)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise _missing(name, str(error).strip().splitlines()[0]) from error


def _missing(model: str, reason: str) -> PlanError:
    return PlanError(
        f"resolve: `model` must be testbed, a folder with a Hugging Face checkpoint or a name on "
        f"the hub, got {model!r} ({reason}). Correct the name, or download the model first."
    )
