"""What a plan may ask for and an engine cannot do: each said in one sentence naming the key."""

from __future__ import annotations

from collections.abc import Iterator

from layercast.errors import PlanError
from layercast.study.axes import Attention, KvDtype, PaddingSide, PrefixCache
from layercast.study.plan import Plan, Precision


def refuse_what_cannot_be(plan: Plan) -> None:
    """Check that the plan's engine can do what its axes and precisions ask.

    Raises:
        PlanError: it cannot; names the key, one line each if there are several.
    """
    kinds = {"openai": _endpoint, "vllm": _vllm, "transformers": _transformers}
    found = list(kinds[plan.engine.kind](plan))
    if found:
        lead = "" if len(found) == 1 else "\n  "
        raise PlanError(f"resolve: {lead}{lead.join(found)}")


def _transformers(plan: Plan) -> Iterator[str]:
    axes, precisions = plan.axes, plan.precisions
    stock = [name.value for name in precisions if name is not Precision.LAYERCAST]
    if Precision.ENDPOINT in precisions:
        yield (
            "`precisions` must be of arithmetic that is computed here, got endpoint. "
            'Leave it out, or add [engine] with kind = "openai".'
        )
    if not set(axes.tensor_parallel) <= {1, 2, 4, 8}:
        yield (
            "`axes.tensor_parallel` must be of 1, 2, 4 and 8, which deal out the 8 shards of a "
            f"reduction evenly, got {_listed(axes.tensor_parallel)}. Leave out the others."
        )
    if axes.attention != (Attention.DEFAULT,) and Precision.LAYERCAST in precisions:
        yield (
            "`axes.attention` must be left out with the precision layercast, which has one "
            f"attention of its own, got {_listed(axes.attention)}. Vary it in a plan of stock "
            "precisions."
        )
    if axes.kv_dtypes != (KvDtype.DEFAULT,) and stock:
        yield (
            "`axes.kv_dtypes` must be left out with stock precisions, which keep keys and values "
            f"as they compute them, got {_listed(axes.kv_dtypes)} with {', '.join(stock)}. Vary "
            "it in a plan of layercast alone."
        )
    if PaddingSide.RIGHT in axes.padding_sides:
        yield (
            "`axes.padding_sides` must be left with the transformers engine, got right: its "
            "generation goes on after the last column, which would be padding. Leave it out."
        )
    if PrefixCache.WARM in axes.prefix_cache and axes.prefill_chunks != (0,):
        yield (
            "`axes.prefill_chunks` must be left out beside a warm `axes.prefix_cache`, which "
            "leaves one token to prefill, got both. Vary them in two plans."
        )


def _vllm(plan: Plan) -> Iterator[str]:
    yield from _transformers(plan)
    if plan.axes.attention != (Attention.DEFAULT,):
        yield (
            "`axes.attention` must be left out with the engine vllm, which has one for this "
            f"machine, got {_listed(plan.axes.attention)}. Remove it."
        )
    stock = [name.value for name in plan.precisions if name is not Precision.LAYERCAST]
    if plan.decoding.generator == "philox" and stock:
        yield (
            "`decoding.generator` must be left out with stock precisions of the engine vllm, which "
            f"draw by themselves from their seeds, got philox with {', '.join(stock)}. Remove it."
        )


def _endpoint(plan: Plan) -> Iterator[str]:
    axes = plan.axes
    if len(plan.precisions) != 1:
        yield (
            "`precisions` must be one with an endpoint, which computes in whatever it was started "
            f"with, got {_listed(plan.precisions)}. Make a run of each and give the report both."
        )
    defaults = type(axes)(batch_sizes=axes.batch_sizes)
    reasons = {
        "instruction_sets": "the server chooses its own",
        "threads": "the server chooses its own",
        "tensor_parallel": "the server was started with one",
        "attention": "the server was started with one",
        "kv_dtypes": "the server was started with one",
        "padding_sides": "requests hold no padding",
        "prefill_chunks": "the server chunks as it likes",
        "prefix_cache": "what the server has cached cannot be known",
    }
    for name, reason in reasons.items():
        given = getattr(axes, name)
        if given != getattr(defaults, name):
            yield (
                f"`axes.{name}` must be left out with an endpoint, got {_listed(given)}: {reason}. "
                "Remove it, and make a run of each server."
            )
    if plan.decoding.generator == "philox":
        yield (
            "`decoding.generator` must be left out with an endpoint, which draws by itself from "
            "the seed it is sent, got philox. Remove it."
        )


def _listed(values: tuple[object, ...]) -> str:
    return ", ".join(map(str, values))
