"""Which logits processors an engine may have: vLLM's own, and those that are vouched for."""

from __future__ import annotations

from typing import Any

from vllm.v1.sample.logits_processor import BUILTIN_LOGITS_PROCESSORS

from layercast.errors import UnsupportedError
from layercast.integrations.vllm.settings import refuse_or_mark


def check_processors(processors: Any) -> list[str]:
    """Refuse processors of which nothing is known.

    Args:
        processors: `LogitsProcessors` of the engine, those of installed plugins among them.

    Returns:
        What voids the guarantee where the user allowed that.

    Raises:
        UnsupportedError: One that is not vLLM's own and does not declare `layercast_exact = True`,
            see `settings.refuse_or_mark`; or one for sampled tokens alone, which draws do not call.
    """
    others = [p for p in processors.all if type(p) not in BUILTIN_LOGITS_PROCESSORS]
    uncalled = [p for p in processors.argmax_invariant if p in others]
    if uncalled:
        raise UnsupportedError(
            "layercast: logits processors that leave the largest logit as it is must be none but "
            f"min-p, got {type(uncalled[0]).__qualname__}. Leave it out, or have its "
            "is_argmax_invariant return False."
        )
    return [
        refuse_or_mark(
            "every logits processor must be vLLM's own or declare layercast_exact = True, by which "
            "you vouch that it treats each row by itself and exactly, got "
            f"{type(processor).__module__}.{type(processor).__qualname__}"
        )
        for processor in others
        if getattr(processor, "layercast_exact", None) is not True
    ]
