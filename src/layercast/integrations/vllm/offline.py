"""What is asked of an engine of vLLM in this process, beside what its `LLM` offers."""

from __future__ import annotations

from typing import Any

from layercast.errors import BackendError


def guarantee(llm: Any) -> str:
    """What may be written into records of an engine's answers.

    Args:
        llm: `vllm.LLM` with the quantization method layercast.

    Returns:
        "bitwise" if everything was covered when the model was loaded, else "none".
    """
    return "none" if any(llm.collective_rpc("layercast_uncovered")) else "bitwise"


def limit_step(llm: Any, tokens: int) -> None:
    """Compute at most so many tokens in a step, so that prompts are computed in chunks.

    Args:
        llm: `vllm.LLM` whose engine runs in this process.
        tokens: 0 for the limit the engine was started with.

    Raises:
        BackendError: The engine runs in another process.
    """
    core = getattr(llm.llm_engine.engine_core, "engine_core", None)
    if core is None:
        raise BackendError(
            "layercast: vLLM's engine must run in this process to set chunks of prompts, got "
            "another process. Set VLLM_ENABLE_V1_MULTIPROCESSING=0."
        )
    scheduler = core.scheduler
    most = scheduler.scheduler_config.max_num_batched_tokens
    scheduler.max_num_scheduled_tokens = min(tokens or most, most)
