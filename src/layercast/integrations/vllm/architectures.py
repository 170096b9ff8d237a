"""Models of vLLM whose code was read whole: what they compute outside the modules swapped here."""

from __future__ import annotations

_HOME = "vllm.model_executor.models."

READ: dict[str, tuple[str, ...]] = {
    "Gemma2ForCausalLM": ("gemma2",),
    "Gemma3ForCausalLM": ("gemma3",),
    "GraniteForCausalLM": ("granite",),
    "LlamaForCausalLM": ("llama",),
    "MistralForCausalLM": ("mistral", "llama"),
    "Phi3ForCausalLM": ("phi3", "llama"),
    "Qwen2ForCausalLM": ("qwen2",),
    "Qwen3ForCausalLM": ("qwen3", "qwen2"),
}
"""Class to the modules its parts are defined in, under `vllm.model_executor.models`.

Beside the modules that are swapped, their forward methods hold only data movement and elementwise
additions and multiplications, which are exact by IEEE 754.
"""


UNCOVERED_OPTIONS = ("llama_4_scaling", "ada_rms_norm_t_cond", "dual_chunk_attention_config")
"""Of config.json: with one of these the code above computes more than that."""


def uncovered_option(config: object) -> str | None:
    """The option by which a model of a read class computes what is not covered.

    Args:
        config: Of the model.

    Returns:
        Its name, or None.
    """
    return next((name for name in UNCOVERED_OPTIONS if getattr(config, name, None)), None)


def read_modules(model: object) -> tuple[str, ...]:
    """Where the parts of a model may be defined that are taken at their word.

    Args:
        model: Of vLLM.

    Returns:
        Dotted names of Python modules; none for a model whose code was not read.
    """
    cls = type(model)
    homes = READ.get(cls.__name__, ())
    if not homes or cls.__module__ != _HOME + homes[0]:
        return ()
    return tuple(_HOME + home for home in homes)
