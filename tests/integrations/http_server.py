"""A server in a process of its own, and questions to it by the official client."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import OpenAI

import layercast

_SOURCE = Path(layercast.__file__).resolve().parents[1]
_START_SECONDS = 120.0


@dataclass(frozen=True)
class Served:
    """A model that answers over HTTP."""

    client: OpenAI
    model: str

    def answer(self, question: str, *, max_tokens: int = 40, **options: Any) -> str:
        """Ask one question; greedily unless a temperature is given."""
        reply = self.client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": question}],
            max_tokens=max_tokens,
            **{"temperature": 0.0, **options},
        )
        return reply.choices[0].message.content or ""

    def streamed(self, question: str, *, max_tokens: int = 40) -> str:
        """Ask one question and join the pieces of the answer."""
        stream = self.client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": question}],
            max_tokens=max_tokens,
            temperature=0.0,
            stream=True,
        )
        return "".join(part.choices[0].delta.content or "" for part in stream if part.choices)

    def at_once(self, questions: Sequence[str], **options: Any) -> list[str]:
        """Ask all questions at the same time."""
        with ThreadPoolExecutor(len(questions)) as threads:
            return list(threads.map(lambda question: self.answer(question, **options), questions))


@contextmanager
def server(
    command: Sequence[str], model: Path, options: Sequence[str], log: Path
) -> Iterator[Served]:
    """Start `python COMMAND MODEL OPTIONS --port ...`, wait until it listens, and end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"PYTHONPATH": str(_SOURCE), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    place = ["--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *command, str(model), *options, *place],
            env={**os.environ, **settings},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(port, process, log)
        base_url = f"http://127.0.0.1:{port}/v1"
        with OpenAI(base_url=base_url, api_key="-", timeout=200, max_retries=0) as client:
            yield Served(client, str(model))
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the server did not listen: {log.read_text()[-2000:]}")
