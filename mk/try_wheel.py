"""Install a built wheel into an empty environment outside the repository, and use it there.

    python mk/try_wheel.py build/dist torch==2.13.0

Needs nothing but Python: neither compiler nor headers, like the machine of someone who runs
`pip install layercast`.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PLAN = """
model = "testbed"
task = "bundled"
problems = 2
precisions = ["bf16", "layercast"]

[axes]
batch_sizes = [1, 2]

[decoding]
max_new_tokens = 24
"""

PROMPT = "Ada has 27 stamps. She finds 14 more stamps. How many stamps does Ada have now?"

# Without torch: the extension needs no OpenMP to be loaded, and takes what a process brings.
ALONE = """
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.ExtensionFileLoader("_csrc", sys.argv[1])
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("_csrc", loader))
loader.exec_module(module)
assert "torch" not in sys.modules
"""

# With torch: one OpenMP in the process, whose threads compute the kernels.
OPENMP = """
import pathlib, torch, layercast
from layercast import ops
torch.set_num_threads(2)
ops.linear(torch.ones(8, 512), torch.ones(512, 512, dtype=torch.bfloat16))
maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
found = {line.split()[-1] for line in maps if "libgomp" in line or "libiomp" in line}
assert len(found) == 1, found
print("OpenMP:", *(pathlib.Path(name).name for name in found))
"""


def check_contents(wheel: Path) -> None:
    """Fail unless the wheel brings no library beside the extension."""
    names = zipfile.ZipFile(wheel).namelist()
    libraries = [name for name in names if ".so" in Path(name).name]
    assert len(libraries) == 1, libraries
    assert libraries[0].startswith("layercast/kernels/cpu/_csrc"), libraries


def main(dist: Path, torch: str) -> None:
    """Install the one wheel in `dist` beside `torch` and run what its README begins with."""
    (wheel,) = dist.resolve().glob("*.whl")
    check_contents(wheel)
    # A stray setting of Python must not bring the repository back in.
    dropped = ("PYTHON", "LAYERCAST", "VIRTUAL_ENV")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    environment["HF_HUB_OFFLINE"] = "1"  # all that is used here comes with the package
    with tempfile.TemporaryDirectory(prefix="layercast-wheel-") as name:
        folder = Path(name)

        def run(*command: str | Path) -> None:
            print("$", *(Path(command[0]).name, *command[1:]), flush=True)
            subprocess.run(command, cwd=folder, env=environment, check=True)

        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        python, layercast = folder / "venv/bin/python", folder / "venv/bin/layercast"
        pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
        # The index's wheels only: what needs a compiler would not install everywhere.
        run(*pip, "--only-binary=:all:", torch, wheel)
        (extension,) = folder.glob("venv/lib/*/site-packages/layercast/kernels/cpu/_csrc*.so")
        for script, source in (("alone.py", ALONE), ("openmp.py", OPENMP)):
            (folder / script).write_text(source, encoding="utf-8")
        run(python, "alone.py", extension)
        run(python, "openmp.py")
        run(layercast, "--version")
        run(layercast, "generate", "testbed", "--prompt", PROMPT)
        run(layercast, "audit", "testbed")
        (folder / "plan.toml").write_text(PLAN, encoding="utf-8")
        run(layercast, "study", "run", "plan.toml", "--out", "runs/tiny")
        gate = ("--fail-if", "layercast:bit_div_percent>0")
        run(layercast, "study", "report", "runs/tiny", "--out", "report.html", *gate)
        print(f"{wheel.name} works in an empty environment.")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
