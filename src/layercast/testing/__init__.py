"""Helpers for tests of reproducibility: bitwise assertions, poisoned memory, strategies.

`layercast.testing.strategies` needs hypothesis and is imported by itself.
"""

from layercast.testing.bitwise import assert_bitwise_equal, bits
from layercast.testing.poison import poisoned, poisoned_empty

__all__ = ["assert_bitwise_equal", "bits", "poisoned", "poisoned_empty"]
