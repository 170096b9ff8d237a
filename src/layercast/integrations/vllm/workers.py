"""Takes part when a worker of vLLM loads a model, if that model asks for layercast."""

from __future__ import annotations

import functools
from typing import Any

from vllm.config import CompilationMode, VllmConfig
from vllm.v1.worker.worker_base import WorkerWrapperBase

from layercast.errors import BackendError, UnsupportedError
from layercast.integrations.transformers.config import QUANT_METHOD
from layercast.integrations.vllm.requests import prepare_requests

_MARK = "_layercast"
_OF_NEW_WEIGHTS = ("reload_weights", "start_weight_update", "start_draft_weight_update")


def prepare_workers() -> None:
    """Follow the making of workers and the check of requests, once in a process.

    Those of other models are left alone.
    """
    init_worker = WorkerWrapperBase.init_worker
    if not hasattr(init_worker, _MARK):
        following = _following(init_worker)
        setattr(following, _MARK, True)
        WorkerWrapperBase.init_worker = following
    unsupported = VllmConfig._get_v2_model_runner_unsupported_features
    if not hasattr(unsupported, _MARK):
        preferring = _preferring_first_runner(unsupported)
        setattr(preferring, _MARK, True)
        VllmConfig._get_v2_model_runner_unsupported_features = preferring
    prepare_requests()


def _following(init_worker: Any) -> Any:
    @functools.wraps(init_worker)
    def follow(self: Any, all_kwargs: list[dict[str, Any]]) -> None:
        vllm_config = all_kwargs[self.rpc_rank]["vllm_config"]
        ours = _asks_for_layercast(vllm_config)
        allowed: list[str] = []
        if ours:
            from layercast.integrations.vllm.settings import check_settings

            allowed += check_settings(vllm_config, vllm_config.quant_config.options)
            # Compiled, elementwise operations would be fused, and round differently.
            vllm_config.compilation_config.mode = CompilationMode.NONE
        init_worker(self, all_kwargs)
        if ours:
            self.worker.load_model = _converting(self.worker, vllm_config, allowed)

    return follow


def _converting(worker: Any, vllm_config: Any, allowed: list[str]) -> Any:
    load_model = worker.load_model

    @functools.wraps(load_model)
    def load(*args: Any, **kwargs: Any) -> Any:
        from layercast.integrations.vllm.conversion import convert_model
        from layercast.integrations.vllm.processors import check_processors
        from layercast.integrations.vllm.sampler import LayerCastSampler

        result = load_model(*args, **kwargs)
        runner = worker.model_runner
        if not hasattr(runner, "input_batch") or not hasattr(runner, "sampler"):
            raise BackendError(
                "layercast: vLLM must use its first model runner, got "
                f"{type(runner).__module__}. Set VLLM_USE_V2_MODEL_RUNNER=0."
            )
        allowed.extend(
            convert_model(runner.get_model(), vllm_config, vllm_config.quant_config.options)
        )
        allowed.extend(check_processors(runner.input_batch.logitsprocs))
        runner.sampler = LayerCastSampler(runner)
        for name in _OF_NEW_WEIGHTS:
            setattr(worker, name, _refusing(name))
        # For `collective_rpc` of vLLM.
        worker.layercast_digests = runner.sampler.take_digests
        worker.layercast_uncovered = lambda: allowed
        return result

    return load


def _refusing(name: str) -> Any:
    """New weights would go into the modules that vLLM made, which the model no longer has."""

    def refuse(*_: Any, **__: Any) -> None:
        raise UnsupportedError(
            f"layercast: `{name}` must not be asked of a running engine, whose weights stay those "
            "it was started with. Write the new ones to a folder and start an engine with it."
        )

    return refuse


def _preferring_first_runner(unsupported: Any) -> Any:
    @functools.wraps(unsupported)
    def prefer(self: Any) -> list[str]:
        found: list[str] = unsupported(self)
        return [*found, "layercast"] if _asks_for_layercast(self) else found

    return prefer


def _asks_for_layercast(vllm_config: Any) -> bool:
    model_config = getattr(vllm_config, "model_config", None)
    return getattr(model_config, "quantization", None) == QUANT_METHOD
