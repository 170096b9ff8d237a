"""On PYTHONPATH, gives each Python process, a server's workers too, a misordered `linear`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from engine_process import misorder

misorder()
