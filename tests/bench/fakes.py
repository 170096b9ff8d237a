"""A clock that moves only when told, and cases that need no tensors."""

from layercast.bench.case import Case, Prepared, Variant
from layercast.bench.workspace import Workspace

NAMES = (Variant.LAYERCAST, Variant.STOCK_FP32)


class FakeClock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


class Turns:
    """Turns that advance a clock by scripted seconds and note who took them."""

    def __init__(self, clock, **seconds):
        self.clock = clock
        self.order = []
        self.seconds = seconds

    def of(self, name):
        values = iter(self.seconds[name])

        def turn():
            self.order.append(name)
            value = next(values)
            self.clock.advance(value)
            return value

        return turn

    def all(self):
        return {name: self.of(name) for name in self.seconds}


def fake_case(**changes):
    fields = {
        "operation": "linear",
        "sizes": (("N", 4), ("K", 8)),
        "rows": 1,
        "weight_dtype": "bfloat16",
        "distribution": "none",
        "variants": NAMES,
    }
    return Case(**(fields | changes))


def fake_prepared(turns, check=dict, **fields):
    return Prepared(turns=turns, check=check, **fields)


def quiet_workspace(clock=None):
    """A workspace that neither waits nor looks at the machine, with copies of 64 KiB."""
    return Workspace(
        **({} if clock is None else {"clock": clock}),
        pause=lambda: None,
        disturbed=lambda: False,
        turn_seconds=0.0,
        past_bytes=2**16,
        memory_bytes=2**20,
    )
