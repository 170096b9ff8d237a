"""LayerCast in lm-eval: its models by the name `layercast`, and its command line."""

from layercast.integrations.lm_eval.command import run

__all__ = ["run"]
