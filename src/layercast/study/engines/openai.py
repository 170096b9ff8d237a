"""The engine that is a server: any endpoint that speaks the OpenAI API, ours to ask only.

The number of requests under way at once is the batch size; what the server makes of it is what is
measured. Answers are compared by token ids where the server or a tokenizer tells them, by the
tokens' bytes where it names tokens, and by characters where it tells nothing but text.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from layercast.errors import EndpointError
from layercast.study.engine_settings import EngineSettings
from layercast.study.engines.endpoint_client import EndpointClient, NoReply, Reply, read_key
from layercast.study.engines.interface import Answer, BatchRequest, Facts, Opening, Prompt
from layercast.study.engines.openai_replies import (
    Candidate,
    Completion,
    Position,
    read_chat,
    read_text,
)
from layercast.study.engines.token_names import TokenNames
from layercast.study.engines.told_digests import digests_of

_PATHS = {"chat": "chat/completions", "completions": "completions"}


def encode(
    model_path: Path | None,
    conversations: Sequence[list[dict[str, str]]],
    settings: EngineSettings,
) -> list[Prompt]:
    """Make the prompts.

    With a tokenizer, its chat template is applied here and the server gets token ids. Without,
    ``chat`` leaves the template to the server, and ``completions`` sends the messages' contents as
    they are.

    Args:
        model_path: Folder of the tokenizer, if the plan names one.
        conversations: The messages of each.
        settings: Of the plan.
    """
    if settings.api == "chat":
        return [Prompt(json.dumps(messages, ensure_ascii=False), ()) for messages in conversations]
    if model_path is not None:
        from layercast.study.engines import transformers

        return transformers.encode(model_path, conversations)
    texts = ["\n\n".join(m["content"] for m in messages) for messages in conversations]
    return [Prompt(text, ()) for text in texts]


def pieces(model_path: Path | None) -> list[bytes]:
    """Return the bytes of the tokenizer's tokens by id; none without one."""
    if model_path is None:
        return []
    from layercast.study.engines import transformers

    return transformers.pieces(model_path)


def open_engine(opening: Opening) -> EndpointEngine:
    """Find out what the endpoint serves and tells, by asking it.

    Raises:
        EndpointError: it cannot be reached, refuses the key, or does not serve the model.
    """
    read_key(opening.settings)  # before anything is sent
    engine = EndpointEngine(opening, TokenNames(pieces(opening.model_path)))
    asyncio.run(engine.inquire())
    return engine


@dataclass(frozen=True)
class _Served:
    """What the endpoint told of itself before the first batch."""

    logprobs: bool
    tokens: str  # what an answer is compared by: ids, tokens or characters
    version: str | None
    max_model_len: int | None


class EndpointEngine:
    """A model behind an endpoint."""

    def __init__(self, opening: Opening, names: TokenNames) -> None:
        self._opening = opening
        self._settings = opening.settings
        self._names = names
        self._read = read_chat if self._settings.api == "chat" else read_text
        self._served = _Served(logprobs=True, tokens="tokens", version=None, max_model_len=None)
        self._candidates: int | None = None

    async def inquire(self) -> None:
        """Ask what is served, and whether log-probabilities come with it."""
        async with EndpointClient(self._settings, concurrency=1) as client:
            listed = await client.ask("GET", "models", _models, optional=True)
            if isinstance(listed, NoReply) and listed.unreachable:
                raise _unreachable(self._settings, listed)
            models = listed.body if isinstance(listed, Reply) else {}
            if models and self._opening.model not in models:
                raise EndpointError(
                    "study run: `model` must be one that the endpoint serves, got "
                    f"{self._opening.model!r}. It serves {', '.join(list(models)[:5])}."
                )
            logprobs, probe = True, await self._probe(client, logprobs=True)
            if isinstance(probe, NoReply):
                logprobs, probe = False, await self._probe(client, logprobs=False)
            if isinstance(probe, NoReply):
                raise EndpointError(
                    f"study run: `engine.endpoint` must answer a request, got {probe.cause}. "
                    "Check `engine.api` and what the server was started with."
                )
            self._served = _Served(
                logprobs=logprobs and probe.body.positions is not None,
                tokens=_compared_by(probe.body),
                version=await self._version(client),
                max_model_len=models.get(self._opening.model),
            )

    def facts(self) -> Facts:
        """Return what is known of the server; of its arithmetic that is nothing."""
        return {
            "engine": "openai",
            "arithmetic": "endpoint",
            "guarantee": "none",
            "endpoint": self._settings.endpoint,
            "api": self._settings.api,
            "model": self._opening.model,
            "declared_precision": self._opening.precision,
            "server_version": self._served.version,
            "max_model_len": self._served.max_model_len,
            "answers_compared_by": self._served.tokens,
            "logprobs": self._served.logprobs,
            # Digests are of the candidates the server names, not of whole rows.
            "vocab_size": None,
            "httpx2": metadata.version("httpx2"),
        }

    def answer(self, request: BatchRequest, on_step: Callable[[int], None]) -> list[Answer]:
        """Send the whole batch at once; see `Engine.answer`.

        Raises:
            EndpointError: no server was there for any of it, or it refuses the key.
        """
        return asyncio.run(self._answer_all(request, on_step))

    def new_pieces(self) -> dict[int, bytes]:
        """Return the bytes of tokens named since the last call."""
        return self._names.take_new()

    async def _answer_all(
        self, request: BatchRequest, on_step: Callable[[int], None]
    ) -> list[Answer]:
        tokens = 0

        async def one(client: EndpointClient, place: int) -> tuple[Answer, Reply | NoReply]:
            nonlocal tokens
            seed = None
            if request.draws is not None:
                seed = (request.draws.seed + request.sample_indices[place]) % 2**63
            body = self._body(request, place, seed)
            reply = await client.ask("POST", _PATHS[self._settings.api], self._parse, body)
            answer = self._answer(reply, request.top_k, seed)
            tokens += len(answer.token_ids)
            on_step(tokens)
            return answer, reply

        async with EndpointClient(self._settings, len(request.prompts)) as client:
            # Without return_exceptions, the first EndpointError ends all of it.
            places = range(len(request.prompts))
            results = await asyncio.gather(*(one(client, place) for place in places))
        replies = [reply for _, reply in results]
        lost = [reply for reply in replies if isinstance(reply, NoReply) and reply.unreachable]
        if lost and len(lost) == len(replies):
            raise _unreachable(self._settings, lost[0])
        return [answer for answer, _ in results]

    def _parse(self, tree: Any) -> Completion:
        completion = self._read(tree)
        if _compared_by(completion) != self._served.tokens and completion.text:
            raise ValueError(f"it does not tell {self._served.tokens}, as the server did before")
        return completion

    def _body(self, request: BatchRequest, place: int, seed: int | None) -> dict[str, Any]:
        prompt, draws = request.prompts[place], request.draws
        body = self._question(prompt, request.max_new_tokens)
        body |= (
            {"temperature": 0.0}
            if draws is None
            else {
                "temperature": draws.temperature,
                "top_p": draws.top_p,
                "seed": seed,
            }
        )
        return body | self._logprob_fields(request.top_k, self._served.logprobs)

    def _question(self, prompt: Prompt, max_new_tokens: int) -> dict[str, Any]:
        asked: dict[str, Any] = {"model": self._opening.model, "max_tokens": max_new_tokens}
        if self._settings.api == "chat":
            asked["messages"] = json.loads(prompt.text)
        else:
            asked["prompt"] = list(prompt.token_ids) or prompt.text
        return {**self._settings.request, **asked}

    def _logprob_fields(self, top_k: int, wanted: bool) -> dict[str, Any]:
        if not wanted:
            return {}
        if self._settings.api == "chat":
            return {"logprobs": True, "top_logprobs": top_k}
        return {"logprobs": top_k}

    async def _probe(self, client: EndpointClient, *, logprobs: bool) -> Reply | NoReply:
        text = json.dumps([{"role": "user", "content": "1 + 1 ="}])
        prompt = Prompt(text if self._settings.api == "chat" else "1 + 1 =", ())
        body = {
            **self._question(prompt, 1),
            "temperature": 0.0,
            **self._logprob_fields(2, logprobs),
        }
        return await client.ask("POST", _PATHS[self._settings.api], self._read, body)

    async def _version(self, client: EndpointClient) -> str | None:
        """Ask for the server's version as vLLM tells it, beside the API."""
        assert self._settings.endpoint is not None
        address = self._settings.endpoint.removesuffix("/v1") + "/version"
        reply = await client.ask("GET", address, _version_of, optional=True)
        return reply.body if isinstance(reply, Reply) else None

    def _answer(self, reply: Reply | NoReply, top_k: int, seed: int | None) -> Answer:
        if isinstance(reply, NoReply):
            cause = f"{reply.cause} (after {reply.attempts} requests)"
            return Answer.failed(cause, attempts=reply.attempts, seed=seed)
        completion: Completion = reply.body
        positions = completion.positions
        if positions is None:
            ids = list(completion.token_ids or self._names.characters(completion.text))
            positions = tuple(
                Position(Candidate(f"token_id:{number}", None, np.nan), ()) for number in ids
            )
        else:
            ids = self._chosen(completion, positions)
        top_ids, top_logprobs = self._tables(positions, ids, top_k)
        return Answer(
            text=completion.text,
            token_ids=ids,
            logprobs=np.array([p.chosen.logprob for p in positions], dtype=np.float32),
            top_ids=top_ids,
            top_logprobs=top_logprobs,
            digests=digests_of(np.array(ids, dtype=np.int64), top_ids, top_logprobs),
            finish_reason=completion.finish_reason,
            seed=seed,
            attempts=reply.attempts,
        )

    def _chosen(self, completion: Completion, positions: Sequence[Position]) -> list[int]:
        if completion.token_ids is None:
            return [self._names.id_of(p.chosen.name, p.chosen.bytes) for p in positions]
        for number, position in zip(completion.token_ids, positions, strict=True):
            self._names.name_id(number, position.chosen.bytes or position.chosen.name.encode())
        return list(completion.token_ids)

    def _tables(
        self, positions: Sequence[Position], ids: Sequence[int], top_k: int
    ) -> tuple[Any, Any]:
        """Return ids and log-probabilities of the candidates, (T, k), best first."""
        width = top_k if self._served.logprobs else 1
        top_ids = np.full((len(positions), width), -1, dtype=np.int32)
        top_logprobs = np.full((len(positions), width), np.nan, dtype=np.float32)
        for row, (position, chosen) in enumerate(zip(positions, ids, strict=True)):
            named = {chosen: position.chosen.logprob}
            for other in position.candidates:
                spelled_so = other.name == position.chosen.name
                number = chosen if spelled_so else self._names.id_of(other.name, other.bytes)
                named.setdefault(number, other.logprob)
            best = sorted(named.items(), key=_best_first)[:width]
            for column, (number, logprob) in enumerate(best):
                top_ids[row, column] = number
                top_logprobs[row, column] = logprob
        if self._served.logprobs:
            top_logprobs[top_ids < 0] = -np.inf
        return top_ids, top_logprobs


def _best_first(candidate: tuple[int, float]) -> tuple[float, int]:
    number, logprob = candidate
    return (math.inf if math.isnan(logprob) else -logprob, number)


def _compared_by(completion: Completion) -> str:
    if completion.token_ids is not None:
        return "token ids"
    return "characters" if completion.positions is None else "tokens"


def _models(tree: Any) -> dict[str, int | None]:
    """Return the models served and their longest sequence, where told."""
    if not isinstance(tree, dict) or not isinstance(tree.get("data"), list):
        raise ValueError("it is no list of models")
    entries = [entry for entry in tree["data"] if isinstance(entry, dict)]
    return {str(entry.get("id")): entry.get("max_model_len") for entry in entries}


def _version_of(tree: Any) -> str | None:
    version = tree.get("version") if isinstance(tree, dict) else None
    return version if isinstance(version, str) else None


def _unreachable(settings: EngineSettings, reply: NoReply) -> EndpointError:
    return EndpointError(
        f"study run: `engine.endpoint` must be reachable, got {reply.cause} from "
        f"{settings.endpoint} in {reply.attempts} requests. Start the server, then start the run "
        "again: finished batches are kept."
    )
