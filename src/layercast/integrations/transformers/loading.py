"""`layercast.load`: a checkpoint to a LayerCast model, or one clear line saying why not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from layercast.auditing import require_bitwise
from layercast.errors import CheckpointError, LayercastError, UnsupportedError, ValueRangeError
from layercast.integrations.transformers.adapters import refuse_adapter_folder
from layercast.integrations.transformers.architectures import check_config, check_modules
from layercast.integrations.transformers.attention import ATTENTION
from layercast.integrations.transformers.config import QUANT_METHOD, LayerCastConfig, dtype_name
from layercast.integrations.transformers.tensor_parallel_request import take_request

_HUB_ARGUMENTS = (
    "cache_dir", "code_revision", "force_download", "local_files_only", "proxies", "revision",
    "subfolder", "token", "trust_remote_code",
)  # fmt: skip
_REFUSED = {
    "dtype": "Arithmetic is always float32; choose storage with weight_dtype=",
    "torch_dtype": "Arithmetic is always float32; choose storage with weight_dtype=",
    "load_in_8bit": "Load the model with transformers to quantise it",
    "load_in_4bit": "Load the model with transformers to quantise it",
    "gguf_file": "Load a safetensors checkpoint",
    "state_dict": "Save it with save_pretrained and load that folder",
    "use_kernels": "Kernels from the hub sum in an order of their own",
    "ignore_mismatched_sizes": "Weights of another shape would be replaced by random numbers",
    "output_loading_info": "A model with missing weights is refused, so there is nothing to report",
}


def load(
    path_or_id: str | os.PathLike[str],
    *,
    weight_dtype: str | torch.dtype | None = None,
    require: str | None = None,
    **from_pretrained: Any,
) -> PreTrainedModel:
    """Load a causal language model with 16-bit storage and float32 arithmetic in a fixed order.

    The same as `AutoModelForCausalLM.from_pretrained(path_or_id,
    quantization_config=LayerCastConfig(weight_dtype))`, with errors that say what
    to do. Weights stay memory-mapped where the checkpoint's own dtypes are kept.

    Args:
        path_or_id: A folder with config.json and safetensors files, or a hub id.
        weight_dtype: None keeps each tensor in the dtype the checkpoint stores it
            in; "bfloat16", "float16" or "float32" (or the torch dtype) stores all
            in that one, rounding to nearest even where it is narrower.
        require: "bitwise" runs `layercast.audit` on the loaded model and refuses one with
            operations that the contract does not cover; None warns and runs them as they are.
        **from_pretrained: Passed on, for example `revision`, `token`,
            `trust_remote_code` (never set unless given here); `quantization_config`, a
            `LayerCastConfig` with further options; and `tp_plan="auto"`, `tp_size` or
            `distributed_config`, which deal the model out to the processes that torchrun
            started (1, 2, 4 or 8), with the bits of one.

    Returns:
        The model, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: The files are missing, out of reach, incomplete, not
            safetensors, or quantised by another method.
        UnsupportedError: The architecture or an argument is not covered.
        EnvironmentSetupError: Tensor parallelism is asked for and no processes were started.
        GuaranteeError: "bitwise" is required and the audit found an uncovered operation.
        ValueRangeError: `require` is neither None nor "bitwise", or the processes cannot deal
            out the model's heads and features evenly.
        DtypeError: `weight_dtype` is not a storage dtype.
    """
    if require not in (None, "bitwise"):
        raise ValueRangeError(
            f'load: `require` must be None or "bitwise", got {require!r}. Leave it out.'
        )
    storage = dtype_name(weight_dtype, function="load")
    given = _given_options(storage, from_pretrained)
    _check_arguments(from_pretrained)
    take_request(from_pretrained)
    # Left out, transformers would ask on the terminal.
    from_pretrained.setdefault("trust_remote_code", False)
    name = os.fspath(path_or_id)
    _check_folder(name)
    try:
        config = from_pretrained.pop("config", None) or _read_config(name, from_pretrained)
        saved = _saved_options(config, name)
        check_config(config)
        config.quantization_config = None
        stored_as = {} if storage is None else {"weight_dtype": storage}
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            name,
            config=config,
            quantization_config=given or LayerCastConfig(**{**saved, **stored_as}),
            use_safetensors=True,
            **from_pretrained,
        )
    except LayercastError:
        raise
    except (OSError, HFValidationError) as error:
        raise _explain(name, error) from error
    if require == "bitwise":
        require_bitwise(model, function="load")
        check_modules(model)
    return model


def read_config(
    path_or_id: str | os.PathLike[str], **hub: Any
) -> tuple[PreTrainedConfig, LayerCastConfig]:
    """Read config.json alone.

    Args:
        path_or_id: As for `load`.
        **hub: `revision`, `token`, `trust_remote_code` and the like, as for `load`.

    Returns:
        The model's configuration, without quantisation; and the options that a saved layercast
        checkpoint carries.

    Raises:
        CheckpointError: It is missing, out of reach, of an unknown model, or says that the
            weights are quantised by another method.
    """
    hub.setdefault("trust_remote_code", False)
    name = os.fspath(path_or_id)
    _check_folder(name)
    try:
        config = _read_config(name, hub)
    except (OSError, HFValidationError) as error:
        if isinstance(error, LayercastError):
            raise
        raise _explain(name, error) from error
    options = _saved_options(config, name)
    config.quantization_config = None
    return config, LayerCastConfig(**options)


def has_method(path_or_id: str | os.PathLike[str], **hub: Any) -> bool:
    """Say whether a checkpoint's config.json names the method, so that it loads without arguments.

    Args:
        path_or_id: As for `load`.
        **hub: As for `read_config`.

    Raises:
        CheckpointError: As `read_config`.
    """
    hub.setdefault("trust_remote_code", False)
    name = os.fspath(path_or_id)
    _check_folder(name)
    try:
        config = _read_config(name, hub)
    except (OSError, HFValidationError) as error:
        if isinstance(error, LayercastError):
            raise
        raise _explain(name, error) from error
    _saved_options(config, name)
    return getattr(config, "quantization_config", None) is not None


def _given_options(storage: str | None, arguments: dict[str, Any]) -> LayerCastConfig | None:
    given = arguments.pop("quantization_config", None)
    if given is not None and not isinstance(given, LayerCastConfig):
        raise UnsupportedError(
            "load: `quantization_config` must be a LayerCastConfig, got "
            f"{type(given).__name__}. For other methods use transformers."
        )
    if given is not None and storage is not None:
        raise ValueRangeError(
            "load: `weight_dtype` must be left out beside `quantization_config`, got "
            f"{storage!r}. Give it to LayerCastConfig."
        )
    return given


def _check_arguments(arguments: dict[str, Any]) -> None:
    for name, remedy in _REFUSED.items():
        value = arguments.get(name)
        if value is not None and value is not False:
            got = value if isinstance(value, str | bool) else type(value).__name__
            raise UnsupportedError(f"load: `{name}` must be left out, got {got}. {remedy}.")
    if arguments.pop("attn_implementation", ATTENTION) != ATTENTION:
        raise UnsupportedError(
            f"load: `attn_implementation` must be left out or {ATTENTION!r}. Stock attention sums "
            "in an order of its own."
        )
    if arguments.pop("use_safetensors", True) is False:
        raise UnsupportedError(
            "load: `use_safetensors` must be left out. Only safetensors files are read."
        )


def _check_folder(name: str) -> None:
    try:
        path = Path(name).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # a name too long, the home of nobody here
        shown = name if len(name) <= 80 else f"{name[:77]}..."
        reason = error.strerror if isinstance(error, OSError) else "no such user's home folder"
        raise CheckpointError(
            f"load: `path_or_id` must be an existing folder or a hub id, got {shown!r} ({reason}). "
            "Check the path."
        ) from error
    if is_folder:
        refuse_adapter_folder(path)
        if not (path / "config.json").is_file():
            raise CheckpointError(
                "load: `path_or_id` must be a folder with config.json and safetensors files, got "
                f"{name!r} without config.json. Point it at the folder that save_pretrained or "
                "the hub wrote."
            )
    elif is_file:
        raise CheckpointError(
            f"load: `path_or_id` must be a folder or a hub id, got the file {name!r}. Give the "
            "folder it lies in."
        )
    elif Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or not name:
        raise CheckpointError(
            "load: `path_or_id` must be an existing folder or a hub id such as "
            f"'Qwen/Qwen2.5-0.5B-Instruct', got {name!r}, which does not exist. Check the path."
        )


def _read_config(name: str, arguments: dict[str, Any]) -> PreTrainedConfig:
    hub = {key: arguments[key] for key in _HUB_ARGUMENTS if key in arguments}
    try:
        return AutoConfig.from_pretrained(name, **hub)
    except (ValueError, KeyError) as error:
        if isinstance(error, OSError):
            raise
        if "trust_remote_code" in str(error):
            raise CheckpointError(
                f"load: `path_or_id` must name a model of transformers, got {name!r} with code of "
                "its own, which is not run unasked. Read that code, then pass "
                "trust_remote_code=True (on the command line --trust-remote-code)."
            ) from error
        raise CheckpointError(
            f"load: the config.json of {name!r} must describe a model of this transformers "
            f"release, got: {_first_line(error)} Check `model_type`, or update transformers."
        ) from error


def _saved_options(config: PreTrainedConfig, name: str) -> dict[str, Any]:
    """Options that a saved layercast checkpoint carries; refuses other methods' checkpoints."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return {}
    options = dict(found if isinstance(found, dict) else found.to_dict())
    method = options.pop("quant_method", None)
    method = str(getattr(method, "value", method))
    if options.get("load_in_8bit") or options.get("load_in_4bit"):
        method = "bitsandbytes"  # whose older checkpoints do not name it
    if method != QUANT_METHOD:
        raise CheckpointError(
            f"load: {name!r} must hold weights in bfloat16, float16 or float32, got weights "
            f"quantised by {method!r}. Load the original, unquantised checkpoint, or use "
            "transformers without layercast."
        )
    return options


def _explain(name: str, error: BaseException) -> CheckpointError:
    """One line for whatever transformers and the hub client say in twenty."""
    causes = list(_chain(error))

    def caused_by(*types: type[BaseException]) -> bool:
        return any(isinstance(cause, types) for cause in causes)

    local = Path(name).expanduser().is_dir()
    if caused_by(GatedRepoError) or "gated repo" in str(error):
        reason = (
            "a gated repository. Accept its terms on the hub, then log in (hf auth login) or pass "
            "token=..."
        )
    elif caused_by(RevisionNotFoundError):
        reason = "a repository without that revision. Check `revision`."
    elif caused_by(RepositoryNotFoundError, HFValidationError):
        reason = "neither. Check the path or the id; for a private repository pass token=..."
    elif not local and (
        caused_by(OfflineModeIsEnabled, LocalEntryNotFoundError, ConnectionError, TimeoutError)
        or "couldn't connect" in str(error)
    ):
        reason = (
            "an id that is not in the local cache while the hub cannot be reached. Connect (and "
            "unset HF_HUB_OFFLINE), or give a local folder."
        )
    elif "safetensors" in str(error) or "no file named" in str(error):
        reason = (
            "no safetensors weights there. Convert older files: load them with transformers and "
            "call save_pretrained."
        )
    else:
        reason = f"this: {_first_line(error)}"
    return CheckpointError(
        f"load: `path_or_id` = {name!r} must be a readable folder or hub id, got {reason}"
    )


def _chain(error: BaseException | None) -> Any:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    lines = str(error.args[0] if error.args else error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
