"""Speed, memory and accuracy against stock PyTorch: typed cases, one runner, records."""

from layercast.bench.case import Case, Prepared, Variant
from layercast.bench.registry import CASES, select
from layercast.bench.runner import Measurement, run

__all__ = ["CASES", "Case", "Measurement", "Prepared", "Variant", "run", "select"]
