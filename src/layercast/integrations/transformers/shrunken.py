"""`layercast audit MODEL`: audits a checkpoint by its config.json, without its weights."""

from __future__ import annotations

import os
import warnings
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from layercast.auditing import AuditReport, audit
from layercast.auditing.shrinking import shrunken
from layercast.errors import CheckpointError, CoverageWarning, UnsupportedError
from layercast.integrations.transformers.architectures import check_config
from layercast.integrations.transformers.config import LayerCastConfig
from layercast.integrations.transformers.loading import load, read_config

_STORAGE = (torch.bfloat16, torch.float16, torch.float32)


def audit_checkpoint(
    path_or_id: str | os.PathLike[str],
    *,
    generation_config: Any = None,
    quantization_config: LayerCastConfig | None = None,
    **hub: Any,
) -> AuditReport:
    """Audit a model of a checkpoint's architecture, small and with random weights.

    Only config.json is read. The model is made as `layercast.load` would make it; one that
    `load` refuses is audited as transformers makes it, and the report says why it was refused.

    Args:
        path_or_id: A folder or a hub id.
        generation_config: As for `layercast.audit`.
        quantization_config: Options to load it with; those of the checkpoint if left out.
        **hub: `revision`, `token`, `trust_remote_code` and the like, as for `load`.

    Returns:
        The report; its model is `path_or_id`.

    Raises:
        CheckpointError: config.json cannot be had, or its weights are quantised by another method.
        UnsupportedError: No model can be made of the configuration.
    """
    name = os.fspath(path_or_id)
    config, saved = read_config(name, **hub)
    text = config.get_text_config(decoder=True)
    stock = _random_model(text, name, trusted=bool(hub.get("trust_remote_code")))
    notes = [f"a small model of random weights after config.json: {_shape(stock.config)}"]
    if text is not config:
        notes.append("its decoder alone: what makes it multimodal was not looked at")
    model: Any
    try:
        check_config(config)
        model = _converted(stock, quantization_config or saved)
    except (UnsupportedError, CheckpointError) as error:
        notes.append(f"audited as transformers makes it, for layercast refuses it: {error}")
        model = stock.float()
    return audit(model.eval(), generation_config=generation_config, name=name, notes=notes)


def _random_model(config: PreTrainedConfig, name: str, *, trusted: bool) -> Any:
    declared = getattr(config, "dtype", None)
    dtype = declared if declared in _STORAGE else torch.bfloat16
    state = torch.random.get_rng_state()
    try:
        small = shrunken(config)
        getattr(small, "validate", lambda: None)()  # not in every release
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(small, dtype=dtype, trust_remote_code=trusted)
    except Exception as error:  # configuration classes raise what they like
        first_line = str(error).strip().partition("\n")[0]
        reason = f"{type(error).__name__}: {first_line}"
        raise UnsupportedError(
            f"audit: the config.json of {name!r} must describe a causal language model that can "
            f"be made small, got {reason}. Load the model and call layercast.audit(model)."
        ) from error
    finally:
        torch.random.set_rng_state(state)


def _converted(stock: Any, options: LayerCastConfig) -> PreTrainedModel:
    with TemporaryDirectory(prefix="layercast-audit-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", CoverageWarning)  # the report says more
        stock.save_pretrained(folder)
        model = load(folder, quantization_config=options)
        # Weights are mapped from files that are about to go.
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        return model


def _shape(config: Any) -> str:
    return (
        f"{config.num_hidden_layers} layers, {config.hidden_size} hidden, "
        f"{config.num_attention_heads} heads, {config.vocab_size} tokens"
    )
