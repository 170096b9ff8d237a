"""Contract under test: importing layercast is light, yet transformers learns of the method."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_importing_layercast_imports_no_transformers():
    code = (
        "import sys, layercast; print([m for m in ('transformers', 'torch') if m in sys.modules])"
    )
    assert run(code) == "[]"


ASK = """
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as configs
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING as quantizers
import sys
print(quantizers["layercast"].__name__, configs["layercast"].__name__)
print([f for f in sys.meta_path if type(f).__module__.startswith("layercast")])
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import layercast, transformers.modeling_utils",
        "import transformers.quantizers.auto, layercast",
        "from layercast import LayerCastConfig, load",
        "import layercast.integrations.transformers.quantizer",
    ],
)
def test_method_is_registered_in_either_order_of_imports(imports):
    assert run(imports + ASK).splitlines() == ["LayerCastQuantizer LayerCastConfig", "[]"]


def test_unknown_names_are_attribute_errors():
    import layercast.integrations.transformers as package

    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name
