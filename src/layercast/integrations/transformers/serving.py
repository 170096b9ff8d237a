"""`layercast serve`: transformers' OpenAI-compatible server over a converted checkpoint.

The server is transformers'. It passes a request's seed to torch's generators, which all requests
share and which our draws do not use; it ignores a temperature where the checkpoint's own settings
are greedy; and under continuous batching it answers every request by the sampling of the first. The
first two are made good, the last is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from transformers.utils.import_utils import is_serve_available

from layercast.errors import (
    DtypeError,
    EnvironmentSetupError,
    GuaranteeError,
    UnsupportedError,
    ValueRangeError,
)
from layercast.integrations.transformers.loading import has_method
from layercast.integrations.transformers.sampling import checked_seed

_REFUSED = {
    "--quantization": "Convert the original checkpoint",
    "--compile": "Compiled, operations would be fused and round differently",
    "--attn-implementation": "Stock attention sums in an order of its own",
    "--default-seed": "Tokens are drawn by the seed that comes with a request, 0 without one",
    "--dtype": "Arithmetic is always float32; choose storage with layercast convert --weight-dtype",
}
#: What continuous batching takes from each request; all else is fixed when the first one comes.
_OF_EACH = ("max_new_tokens", "max_length", "eos_token_id")


def serve(model: str, arguments: Sequence[str]) -> None:
    """Do what `transformers serve MODEL ARGUMENTS` does, for a checkpoint that names the method.

    Args:
        model: Folder or hub id; the server answers for it alone.
        arguments: Of `transformers serve`, which documents them.

    Raises:
        EnvironmentSetupError: The server's packages are missing.
        GuaranteeError: The checkpoint does not name the method, so that it would run stock.
        UnsupportedError: An option that changes the arithmetic.
        ValueRangeError: An option stands before the model.
        CheckpointError: The checkpoint cannot be read.
        SystemExit: As the server ends.
    """
    if not is_serve_available():
        raise EnvironmentSetupError(
            "serve: the packages of transformers' server must be installed, got an environment "
            "without them. Install them: pip install 'layercast[serve]'."
        )
    if model.startswith("-"):
        raise ValueRangeError(
            f"serve: `model` must come first, got {model}. Write layercast serve MODEL {model} ..."
        )
    for word in arguments:
        name = word.partition("=")[0]
        if name in _REFUSED:
            raise UnsupportedError(
                f"serve: `{name}` must be left out on a layercast model. {_REFUSED[name]}."
            )
    if not has_method(model):
        raise GuaranteeError(
            f"serve: the config.json of `model` must name layercast, got {model!r}, which the "
            f"server would run by stock arithmetic. Write one that does: layercast convert {model} "
            "OUT, then layercast serve OUT."
        )
    hold_server_to_requests()
    from transformers.cli.transformers import app

    app(["serve", model, *arguments], prog_name="layercast")


def hold_server_to_requests() -> None:
    """Make the server answer each request by its own seed and sampling, or say that it cannot."""
    from transformers.cli.serving.utils import BaseHandler, CBGenerateManager

    if getattr(BaseHandler, "_held_to_requests", False):
        return
    BaseHandler._held_to_requests = True
    BaseHandler._build_generation_config = _with_sampling(BaseHandler._build_generation_config)
    CBGenerateManager.init_cb = _once_for_all(CBGenerateManager.init_cb)


def _with_sampling(stock: Any) -> Any:
    @functools.wraps(stock)
    def build(self: Any, body: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        config = stock(self, body, *args, **kwargs)
        if body.get("temperature"):
            config.do_sample = True
        if body.get("seed") is not None:
            config.seed = _seed_of_request(body["seed"])
        return config

    return build


def _seed_of_request(seed: Any) -> int:
    from fastapi import HTTPException

    try:
        return checked_seed(seed)
    except (DtypeError, ValueRangeError) as error:  # the client's mistake, not the server's
        raise HTTPException(status_code=400, detail=str(error)) from error


def _once_for_all(stock: Any) -> Any:
    @functools.wraps(stock)
    def begin(self: Any, model: Any, config: Any) -> None:
        from fastapi import HTTPException

        asked = {k: v for k, v in config.to_dict().items() if k not in _OF_EACH}
        first = self.__dict__.get("_first_sampling", asked)
        for name in sorted({*asked, *first}):
            if asked.get(name) != first.get(name):
                raise HTTPException(
                    status_code=400,
                    detail=(
                        f"With --continuous-batching `{name}` must be that of the first request, "
                        f"{first.get(name)!r}, got {asked.get(name)!r}. Ask for the same, or start "
                        "the server without --continuous-batching."
                    ),
                )
        stock(self, model, config)
        self._first_sampling = first  # not that of a request which was refused

    return begin
