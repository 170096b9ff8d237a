"""On PYTHONPATH, gives each Python process, a server's workers too, a misordered `linear`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from engine_process import order_by_rows

from layercast import ops

kernel = ops.linear
ops.linear = lambda x, weight, bias=None: order_by_rows(kernel, x, weight, bias)
