"""Where a run's workers are started: as processes of this machine, or over a Ray cluster."""

from layercast.study.launchers.choose import LAUNCHERS, check_launcher, open_launcher
from layercast.study.launchers.interface import End, Launcher, RunningWorker

__all__ = ["LAUNCHERS", "End", "Launcher", "RunningWorker", "check_launcher", "open_launcher"]
