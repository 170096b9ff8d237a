"""Writes checkpoints that name the method, so that loading them needs no argument."""

from layercast.checkpoints.convert import Converted, convert

__all__ = ["Converted", "convert"]
