"""The other end of `model_process`: starts it, asks, and says in a line how it failed."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import torch

from layercast.bench.case import Variant
from layercast.errors import EnvironmentSetupError


class ProcessWorker:
    """A process that holds a model; it loads while this one goes on.

    Args:
        name: What messages call it.
        command: Starts a program that answers as `model_process` does.
        environment: The program's variables; this process's if left out.
    """

    def __init__(
        self, name: str, command: Sequence[object], environment: Mapping[str, str] | None = None
    ) -> None:
        self._name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the worker)
        self._process = subprocess.Popen(
            [*map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        self._requests = cast(IO[str], self._process.stdin)
        self._replies = cast(IO[str], self._process.stdout)

    @functools.cached_property
    def loaded(self) -> dict[str, Any]:
        """What it says when its model is loaded: seconds, parameters, bytes.

        Raises:
            EnvironmentSetupError: The process ended instead.
        """
        return self._answer()

    def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        """Send a request once the model is loaded, and return the reply.

        Raises:
            EnvironmentSetupError: The process ended instead.
        """
        _ = self.loaded  # the first line; what follows answers
        # A pipe without reader: the process has ended, and why is said with the missing answer.
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(json.dumps({"request": request} | arguments) + "\n")
            self._requests.flush()
        return self._answer()

    def close(self) -> None:
        """End the process and wait for it."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self._process.wait()
        self._replies.close()
        self._errors.close()

    def stop(self) -> None:
        """End the process in the middle of whatever it does."""
        self._process.terminate()
        self.close()

    def _answer(self) -> dict[str, Any]:
        line = self._replies.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            said = [text for text in self._errors.read().splitlines() if text.strip()]
            reason = said[-1] if said else f"exit status {status}"
            raise EnvironmentSetupError(
                f"bench: the process of {self._name}'s model must answer, got its end: "
                f"{reason}. Free memory if there was too little, or leave models out with `--only`."
            )
        reply: dict[str, Any] = json.loads(line)
        return reply


class ModelWorker(ProcessWorker):
    """A process that holds one variant's model.

    Args:
        folder: The checkpoint.
        variant: Whose model.
    """

    def __init__(self, folder: Path, variant: Variant) -> None:
        program = [sys.executable, "-m", "layercast.bench.model_process"]
        super().__init__(variant, [*program, folder, variant, torch.get_num_threads()])
