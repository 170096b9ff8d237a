"""The other end of `model_process`: starts it, asks, and says in a line how it failed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from layercast.bench.case import Variant
from layercast.errors import EnvironmentSetupError


class ModelWorker:
    """A process that holds one variant's model.

    Attributes:
        loaded: What it said when its model was loaded: seconds, parameters, bytes.

    Args:
        folder: The checkpoint.
        variant: Whose model.

    Raises:
        EnvironmentSetupError: It ended instead of answering.
    """

    def __init__(self, folder: Path, variant: Variant) -> None:
        self._variant = variant
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the worker)
        command = [sys.executable, "-m", "layercast.bench.model_process"]
        arguments = [folder, variant, torch.get_num_threads()]
        self._process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.loaded = self._answer()

    def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and return the reply.

        Raises:
            EnvironmentSetupError: The process ended instead.
        """
        assert self._process.stdin is not None
        # A pipe without reader: the process has ended, and why is said with the missing answer.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"request": request} | arguments) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process and wait for it."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            said = [text for text in self._errors.read().splitlines() if text.strip()]
            reason = said[-1] if said else f"exit status {status}"
            raise EnvironmentSetupError(
                f"bench: the process of {self._variant}'s model must answer, got its end: "
                f"{reason}. Free memory if there was too little, or leave models out with `--only`."
            )
        reply: dict[str, Any] = json.loads(line)
        return reply
