"""Where a plan's model lies, and which bytes it is made of."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from layercast.errors import CheckpointError, PlanError, first_line

# What decides a model's answers: weights, configuration, tokenizer, chat template. Not what else
# may lie beside them, such as a training log, which may be written again at any time.
_PATTERNS = (
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.*",
    "*.model",
    "*.safetensors",
    "*.safetensors.index.json",
)


class FileDigest(BaseModel):
    """Size and content of a file that decides the model's answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int
    sha256: str


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
        folder = _expand(model)
        if not _is_folder(model, folder):
            if model.startswith(("/", ".", "~")) or model.count("/") != 1:
                raise _missing(model, "no such folder")
            folder = _download(model)
    if not (folder / "config.json").is_file():
        raise _missing(model, f"no config.json in {folder}")
    return folder.resolve()


def digest_files(folder: Path) -> dict[str, FileDigest]:
    """Return size and SHA-256 of every file that decides a model's answers.

    Args:
        folder: From `locate`.

    Returns:
        By file name, sorted.

    Raises:
        CheckpointError: a file cannot be read.
    """
    names = sorted({path.name for pattern in _PATTERNS for path in folder.glob(pattern)})
    digests = {}
    for name in names:
        try:
            with (folder / name).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                digests[name] = FileDigest(bytes=file.tell(), sha256=sha256)
        except OSError as error:
            raise CheckpointError(
                f"digest_files: `{folder / name}` must be readable, got: {error.strerror}. "
                "Mend its permissions or fetch the model again."
            ) from error
    return digests


def _expand(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError as error:  # ~name of nobody here
        raise _missing(model, "no such user's home folder") from error


def _is_folder(model: str, folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError as error:
        raise _missing(model, error.strerror or str(error)) from error


def _download(name: str) -> Path:
    # Imported here: only a model from the hub needs it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_PATTERNS)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise _missing(name, first_line(error)) from error


def _missing(model: str, reason: str) -> PlanError:
    shown = model if len(model) <= 80 else f"{model[:77]}..."
    return PlanError(
        f"resolve: `model` must be testbed, a folder with a Hugging Face checkpoint or a name on "
        f"the hub, got {shown!r} ({reason}). Correct the name, or download the model first."
    )
