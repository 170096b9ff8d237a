"""Refuse, before anything is downloaded, a torch that would bring gigabytes of CUDA libraries.

    python mk/check_torch.py torch==2.13.0

Asks pip what it would install. Runs in a new environment, before torch is there.
"""

import json
import os
import subprocess
import sys

CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")


def cuda_packages(requirement: str) -> list[str]:
    """Return the names of the CUDA packages that installing `requirement` would bring."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    options = ["--quiet", "--disable-pip-version-check", "--report", "-", requirement]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"layercast: {requirement} cannot be installed; name another with TORCH=...")
    names = [item["metadata"]["name"] for item in json.loads(done.stdout)["install"]]
    return sorted(name for name in names if name.lower().startswith(CUDA_PREFIXES))


if __name__ == "__main__":
    found = cuda_packages(sys.argv[1])
    if found and os.environ.get("ALLOW_CUDA") != "1":
        sys.exit(
            f"layercast: {sys.argv[1]} would bring {len(found)} CUDA packages ({found[0]}, ...), "
            "and nothing here needs them. Set PIP_EXTRA_INDEX_URL to PyTorch's CPU index (its "
            "installation page names it) and run make again with TORCH=torch==2.13.0+cpu, or take "
            "the CUDA build with ALLOW_CUDA=1."
        )
