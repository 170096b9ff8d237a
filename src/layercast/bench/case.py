"""What is measured: a case, its variants, and what preparing it gives the runner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from layercast.bench.timing import Schedule, Turn

Facts = Mapping[str, Any]
"""What a record says beside the times: numbers, strings and mappings of them."""


class Variant(StrEnum):
    """One way to compute an operation.

    Attributes:
        LAYERCAST: `layercast.ops`, or a model of `layercast.load`.
        STOCK_BF16: Stock PyTorch in bfloat16, activations too: fast, and rounds every result.
        STOCK_FP16: The same in float16.
        STOCK_FP32: Stock PyTorch in float32, weights stored in float32.
        PUBLISHED: LayerCast as published: `F.linear(x, weight.float())`, the weight upcast whole
            before each product (arXiv 2506.09501, section 5).
        FMA_PEAK: No operation: independent fused multiply-adds in registers, as many as the
            operation needs.
    """

    LAYERCAST = "layercast"
    STOCK_BF16 = "stock_bf16"
    STOCK_FP16 = "stock_fp16"
    STOCK_FP32 = "stock_fp32"
    PUBLISHED = "published"
    FMA_PEAK = "fma_peak"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operation at one shape.

    Attributes:
        operation: Its name, as in `layercast.ops`; `decode`, `prefill` and `memory` are a model's.
        sizes: Named sizes, in the order they are written: N and K, heads, context, ...
        rows: Rows of activations: batch at decode, tokens at prefill.
        weight_dtype: Storage of the weights, "none" where there are none. Activations are float32
            in every variant but STOCK_BF16 and STOCK_FP16.
        distribution: Where the inputs come from.
        variants: What is compared, LAYERCAST among them.
        short: Measured without `--full` too.
        model: What a person calls the model, for the operations of a model.
    """

    operation: str
    sizes: tuple[tuple[str, int], ...]
    rows: int
    weight_dtype: str
    distribution: str
    variants: tuple[Variant, ...]
    short: bool = False
    model: str = ""

    def size(self, name: str) -> int:
        """Return the size of that name."""
        return dict(self.sizes)[name]

    @property
    def shape_text(self) -> str:
        """The sizes as a person writes them, without the rows."""
        sizes = dict(self.sizes)
        if self.model:
            return self.model
        if self.operation == "linear":
            return f"{sizes['N']} x {sizes['K']}"
        if self.operation == "attention":
            return f"{sizes['Hq']}/{sizes['Hkv']} heads of {sizes['D']}, {sizes['Tk']:,} keys"
        return ", ".join(f"{name} {size:,}" for name, size in sizes.items())

    @property
    def label(self) -> str:
        """Operation, sizes and rows: unique among the cases."""
        return f"{self.operation}, {self.shape_text}, rows {self.rows}"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A case with its tensors made.

    Attributes:
        turns: For each variant, what computes the operation and returns its seconds.
        check: Compares LAYERCAST's result with the definition and all results with float64;
            returns what it found, raises GuaranteeError where a bit is wrong.
        facts: How the inputs lie in memory.
        fmas: Fused multiply-adds of one operation, for the variants whose rate is of interest.
        schedule: In place of the run's, where a turn is long.
        after: Facts that are known only once the turns have run.
    """

    turns: Mapping[Variant, Turn]
    check: Callable[[], Facts]
    facts: Facts = field(default_factory=dict)
    fmas: Mapping[Variant, int] = field(default_factory=dict)
    schedule: Schedule | None = None
    after: Callable[[], Facts] = dict
