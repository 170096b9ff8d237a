"""What generates the answers, behind one small interface."""

from layercast.study.engines.interface import Engine, Facts, Generation, Prompt, load_engine

__all__ = ["Engine", "Facts", "Generation", "Prompt", "load_engine"]
