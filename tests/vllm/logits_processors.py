"""Logits processors for the tests, as a user would write them."""

from __future__ import annotations

from vllm.v1.sample.logits_processor import LogitsProcessor


class Shift(LogitsProcessor):
    """Treats each row by itself, and says so."""

    layercast_exact = True

    def __init__(self, *_):
        pass

    def is_argmax_invariant(self):
        return False

    def update_state(self, batch_update):
        pass

    def apply(self, logits):
        return logits + 1.0


class MeanOfTheBatch(Shift):
    """Makes an answer depend on its neighbours."""

    layercast_exact = False

    def apply(self, logits):
        return logits - logits.mean(0)


class ForSampledTokens(Shift):
    """Vouched for, but of the kind that our draws do not call."""

    def is_argmax_invariant(self):
        return True
