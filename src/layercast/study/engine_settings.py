"""The engine a plan asks for: transformers or vLLM on this machine, or an endpoint."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator

from layercast.study.axes import Section

_Name = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]

#: Dotted path of the module of each engine.
MODULES = {
    "transformers": "layercast.study.engines.transformers",
    "openai": "layercast.study.engines.openai",
    "vllm": "layercast.study.engines.vllm",
}

# What the study itself puts into a request.
_OURS = frozenset(
    ("model", "prompt", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p",
     "seed", "logprobs", "top_logprobs", "n", "stream")
)  # fmt: skip
# What an engine of vLLM is told by the plan's other keys.
_VLLM_OURS = frozenset(
    ("model", "tokenizer", "dtype", "quantization", "hf_overrides", "kv_cache_dtype", "seed",
     "tensor_parallel_size", "enable_prefix_caching", "logprobs_mode", "max_logprobs")
)  # fmt: skip
_ENDPOINT_ONLY = (
    "endpoint", "api", "api_key_variable", "tokenizer", "timeout_seconds", "retries",
    "max_wait_seconds", "request",
)  # fmt: skip

_SECRET = re.compile(
    r"api.?key|authorization|secret|password|^token$|(hf|access|auth).?token", re.I
)


class EngineSettings(Section):
    """What generates the answers.

    The API key is read from the environment variable that `api_key_variable` names, by the
    process that sends the requests; a plan never holds it.
    """

    kind: Literal["transformers", "vllm", "openai"] = "transformers"
    endpoint: _Name | None = None
    api: Literal["completions", "chat"] = "completions"
    api_key_variable: _Name | None = None
    tokenizer: _Name | None = None
    timeout_seconds: float = Field(default=3600.0, gt=0.0, le=86_400.0)
    retries: int = Field(default=8, ge=0, le=100, strict=True)
    max_wait_seconds: float = Field(default=120.0, gt=0.0, le=3600.0)
    request: dict[str, Any] = Field(default_factory=dict)
    vllm: dict[str, Any] = Field(default_factory=dict)

    @field_validator("endpoint")
    @classmethod
    def _plain_address(cls, value: str | None) -> str | None:
        # Nothing of the address is repeated in a message: it may hold a password.
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            parts.port  # noqa: B018  # raises where it is no number
        except ValueError as error:
            raise ValueError("an address like http://localhost:8000/v1") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an address like http://localhost:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                "an address without user, password, query or fragment; name the environment "
                "variable that holds the key in `engine.api_key_variable`"
            )
        return value.rstrip("/")

    @field_validator("api_key_variable")
    @classmethod
    def _variable_name(cls, value: str | None) -> str | None:
        # Someone may have put the key itself here, so it is not repeated.
        if value is not None and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", value) is None:
            raise ValueError("the name of an environment variable, not the key itself")
        return value

    @field_validator("request")
    @classmethod
    def _only_what_is_left_to_say(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = sorted(_OURS & value.keys())
        if ours:
            raise ValueError(f"fields that the study does not set itself, and not {ours[0]}")
        secret = _first_secret(value)
        if secret:
            raise ValueError(
                "without keys, which belong in the environment variable that "
                f"`engine.api_key_variable` names; remove {secret}"
            )
        return value

    @field_validator("vllm")
    @classmethod
    def _only_other_arguments(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = sorted(_VLLM_OURS & value.keys())
        if ours:
            raise ValueError(
                f"arguments of vllm.LLM that no other key of the plan is for, and not {ours[0]}"
            )
        secret = _first_secret(value)
        if secret:
            raise ValueError(
                "without keys, which a record would keep: log in (hf auth login) or set HF_TOKEN; "
                f"remove {secret}"
            )
        return value

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind == "openai" and self.endpoint is None:
            raise ValueError("`engine.endpoint` is missing; add it")
        if self.vllm and self.kind != "vllm":
            raise ValueError('`engine.vllm` belongs to vLLM; add kind = "vllm", or remove it')
        if self.kind != "openai":
            defaults = {name: type(self).model_fields[name] for name in _ENDPOINT_ONLY}
            for name, field in defaults.items():
                if getattr(self, name) != field.get_default(call_default_factory=True):
                    raise ValueError(
                        f'`engine.{name}` belongs to an endpoint; add kind = "openai", or remove it'
                    )
        return self

    @property
    def module(self) -> str:
        """Dotted path of the engine's module."""
        return MODULES[self.kind]

    @property
    def follows_ranks(self) -> bool:
        """Whether the study starts the ranks of a model; vLLM starts its own."""
        return self.kind == "transformers"

    @property
    def remote(self) -> bool:
        """Whether a server computes, on hardware that this process does not choose."""
        return self.kind == "openai"


def _first_secret(value: dict[str, Any]) -> str | None:
    """The first name under which one would write a key, which a plan never holds."""
    return next((name for name in value if _SECRET.search(name)), None)
