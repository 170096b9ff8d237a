"""Say in a line what this machine lacks to build and run layercast. Written for any Python 3."""

import importlib.util
import os
import shutil
import sys
import sysconfig


def missing():
    """Return a sentence for each thing that is missing; an empty list where nothing is."""
    found = []
    if sys.version_info < (3, 11):
        found.append(
            "Python 3.11 or newer is needed, got {}.{} at {}; "
            "name another with `make PYTHON=python3.12 ...`.".format(
                sys.version_info[0], sys.version_info[1], sys.executable
            )
        )
    elif importlib.util.find_spec("ensurepip") is None:
        found.append(
            "Python's venv module is incomplete (no ensurepip); install it, "
            "e.g. `apt-get install python3-venv`."
        )
    elif not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        found.append(
            "Python's headers are needed for the kernels, and {} has no Python.h; install them, "
            "e.g. `apt-get install python3-dev`.".format(sysconfig.get_path("include"))
        )
    chosen = os.environ.get("CXX", "").split()
    compilers = chosen[:1] or ["c++", "g++", "clang++"]
    if not any(shutil.which(name) for name in compilers):
        found.append(
            "A C++20 compiler is needed for the kernels, and none of {} is on the PATH; "
            "install one, e.g. `apt-get install g++`, or set CXX.".format(", ".join(compilers))
        )
    return found


if __name__ == "__main__":
    problems = missing()
    for problem in problems:
        sys.stderr.write("layercast: " + problem + "\n")
    sys.exit(1 if problems else 0)
