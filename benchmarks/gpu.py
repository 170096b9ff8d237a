"""Times layercast on a CUDA device against stock PyTorch; rewrites its record case by case.

    python benchmarks/gpu.py FOLDER [SECONDS]

Writes FOLDER/<device>.json. A time is the median over rounds in which all contenders take turns,
by the device's own clock. No case begins after SECONDS, 170 unless given; linear layers take at
most six tenths of it.
"""

from __future__ import annotations

import sys
import traceback

import gpu_attention
import gpu_linear
import gpu_model
import torch
from gpu_timing import Record


def main(folder, seconds):
    """Measure every case for which there is time.

    Args:
        folder: Of the record.
        seconds: Budget.

    Returns:
        How many parts ended in an error: the others are measured all the same.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(1)
    record, failed = Record(folder), 0
    # Each part may use what those before it have left.
    for part, share in ((gpu_linear, 0.6), (gpu_attention, 0.75), (gpu_model, 1.0)):
        record.until(share * seconds)
        try:
            with torch.inference_mode():
                part.run(record)
        except Exception:
            failed += 1
            traceback.print_exc()
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 170.0))
