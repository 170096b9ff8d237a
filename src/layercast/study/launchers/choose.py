"""The launcher a run is started with, by its name."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from layercast.errors import EnvironmentSetupError, UnsupportedError, ValueRangeError
from layercast.study.jobs import Job
from layercast.study.launchers.interface import Launcher
from layercast.study.launchers.processes import ProcessLauncher

LAUNCHERS = ("local", "ray")


def check_launcher(name: str, address: str | None) -> None:
    """Refuse what cannot be chosen, before a run folder is touched.

    Args:
        name: One of `LAUNCHERS`.
        address: Of a Ray cluster, or None.

    Raises:
        ValueRangeError: another name, or an address of nothing.
        EnvironmentSetupError: Ray is not installed.
    """
    if name not in LAUNCHERS:
        raise ValueRangeError(
            f"study run: `--launcher` must be {' or '.join(LAUNCHERS)}, got {name!r}. Correct the "
            "name."
        )
    if name == "local" and address is not None:
        raise ValueRangeError(
            f"study run: `--ray-address` must come with --launcher ray, got {address!r} alone. "
            "Give both, or neither."
        )
    if name == "ray" and importlib.util.find_spec("ray") is None:
        raise EnvironmentSetupError(
            "study run: the package ray must be installed for --launcher ray, got an environment "
            "without it. Install it on every node: pip install 'layercast[ray]'."
        )


@contextmanager
def open_launcher(
    name: str, jobs: list[Job], *, lock: int, address: str | None
) -> Iterator[Launcher]:
    """Open the launcher; what it opened is let go of at the end.

    Args:
        name: One of `LAUNCHERS`.
        jobs: To be started.
        lock: Of the run folder.
        address: Of the Ray cluster.

    Raises:
        UnsupportedError: the jobs ask a server, and a cluster is to ask for them.
        EnvironmentSetupError: no Ray cluster can be reached.
    """
    launcher: Launcher
    if name == "ray":
        if any(job.remote for job in jobs):
            raise UnsupportedError(
                "study run: `--launcher` must be local with an endpoint, got ray: how many "
                "requests are under way at once is what is measured. Leave it out."
            )
        # Imported here: Ray is an extra, and takes a second.
        from layercast.study.launchers.ray_cluster import RayLauncher

        launcher = RayLauncher(address)
    else:
        launcher = ProcessLauncher(lock)
    try:
        yield launcher
    finally:
        launcher.close()
