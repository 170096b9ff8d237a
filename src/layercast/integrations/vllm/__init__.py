"""LayerCast in vLLM: a plugin that vLLM finds by its entry point.

Everything that touches vLLM's internals is in this package, which nothing else of layercast
imports; `plugin.register` is what vLLM calls.
"""
