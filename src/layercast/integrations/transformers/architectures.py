"""Which models are covered: decided by class before loading, and by module after the swap."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from layercast.errors import UnsupportedError
from layercast.modules import Embedding, Linear, RMSNorm, RotaryEmbedding, SiLU

# model_type -> prefix of its classes. Read whole: beside the modules that are swapped, their
# forward methods hold only data movement and elementwise additions and multiplications, which
# are exact by IEEE 754.
COVERED = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}

_OURS = (Embedding, Linear, RMSNorm, RotaryEmbedding, SiLU, nn.Identity)
_PARTS = ("ForCausalLM", "Model", "DecoderLayer", "Attention", "MLP")


def check_config(config: PreTrainedConfig) -> None:
    """Refuse a model that is not covered before any of its weights are fetched.

    Args:
        config: Of the model.

    Raises:
        UnsupportedError: Encoder-decoder or another architecture.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedError(
            "layercast: the model must be decoder-only, got the encoder-decoder "
            f"{config.model_type!r}. Load it without layercast."
        )
    if config.model_type not in COVERED:
        raise UnsupportedError(
            f"layercast: `model_type` must be one of {', '.join(sorted(COVERED))}, got "
            f"{config.model_type!r}. Other architectures hold operations that the contract does "
            "not cover yet; load it without layercast."
        )


def check_class(model: PreTrainedModel) -> None:
    """Refuse a model whose own class is not covered, code from a hub repository included.

    Args:
        model: Its skeleton, before the swap.

    Raises:
        UnsupportedError: Its class or module of origin is another.
    """
    check_config(model.config)
    kind = model.config.model_type
    home = f"transformers.models.{kind}.modeling_{kind}"
    names = (COVERED[kind] + "ForCausalLM", COVERED[kind] + "Model")
    cls = type(model)
    if cls.__module__ != home or cls.__name__ not in names:
        raise UnsupportedError(
            f"layercast: the model class must be {' or '.join(names)} of {home}, got "
            f"{cls.__name__} of {cls.__module__}. Load it with AutoModelForCausalLM, and without "
            "trust_remote_code."
        )


def check_modules(model: PreTrainedModel) -> None:
    """Refuse a model that still holds a module the contract does not cover.

    Args:
        model: After its modules were swapped.

    Raises:
        UnsupportedError: Names the first such module and its class.
    """
    kind = model.config.model_type
    home = f"transformers.models.{kind}.modeling_{kind}"
    containers = {COVERED[kind] + part for part in _PARTS}
    for name, module in model.named_modules():
        cls = type(module)
        if isinstance(module, _OURS) or cls is nn.ModuleList:
            continue
        if (
            cls.__module__ == home
            and cls.__name__ in containers
            and any(True for _ in module.children())
        ):
            continue
        raise UnsupportedError(
            f"layercast: every module must be covered by the contract, got `{name}` of class "
            f"{cls.__module__}.{cls.__name__}. Load this model without layercast."
        )
