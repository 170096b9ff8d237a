"""Registers LayerCast with transformers once transformers is there, without importing it.

transformers finds quantization methods in a table of its own and looks for no entry points, so a
saved LayerCast checkpoint loads by plain `from_pretrained` only if the method was put into that
table. Importing transformers to do so would make `import layercast` slow for everyone else.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_TABLE = "transformers.quantizers.auto"
_QUANTIZER = "layercast.integrations.transformers.quantizer"


def register_with_transformers() -> None:
    """Register the quantization method now, or as soon as transformers has made its table."""
    if _TABLE in sys.modules:
        importlib.import_module(_QUANTIZER)
    elif not any(isinstance(finder, _TableFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TableFinder())


class _TableFinder(MetaPathFinder):
    """Finds one module as usual, and makes its loader register the method afterwards."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _TABLE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        importlib.import_module(_QUANTIZER)
