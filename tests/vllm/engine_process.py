"""Runs vLLM in a process of its own: settings and rounds of requests in, tokens and bits out.

    python engine_process.py JOB RESULT

Both are JSON files; see `engines.Engine`.
"""

from __future__ import annotations

import json
import os
import sys


def main(job_path: str, result_path: str) -> None:
    with open(job_path, encoding="utf-8") as file:
        job = json.load(file)
    os.environ.update(job["environment"])
    if "LAYERCAST_TEST_RELEASE" in os.environ:
        from layercast.integrations.vllm import quantization

        quantization.installed_version = lambda: os.environ["LAYERCAST_TEST_RELEASE"]
    if "LAYERCAST_TEST_UNHOOK" in os.environ:
        from layercast.integrations.vllm import plugin, workers

        plugin.register()
        workers.WorkerWrapperBase.init_worker = workers.WorkerWrapperBase.init_worker.__wrapped__
        workers.prepare_workers = plugin.register = lambda: None
    if "LAYERCAST_TEST_ORDER_BY_ROWS" in os.environ:
        misorder()
    from vllm import LLM

    llm = LLM(**job["options"])
    rounds = [answer(llm, requests) for requests in job["rounds"]]
    if "LAYERCAST_TEST_CALL" in os.environ:
        llm.collective_rpc(os.environ["LAYERCAST_TEST_CALL"])
    result = {"rounds": rounds, "metrics": metrics(llm)}
    with open(result_path, "w", encoding="utf-8") as file:
        json.dump(result, file)


def misorder() -> None:
    """Give this process a `linear` with the order of `order_by_rows`."""
    from layercast import ops

    kernel = ops.linear
    ops.linear = lambda x, weight, bias=None: order_by_rows(kernel, x, weight, bias)


def order_by_rows(kernel, x, weight, bias):
    """One order of a sum below four rows, another from there on, as libraries choose by shape."""
    if x.shape[0] < 4:
        return kernel(x, weight, bias)
    return kernel(x.flip(-1), weight.flip(-1), bias)


def answer(llm, requests: list[dict]) -> list[dict]:
    """All at once; each request is its prompt's token ids and its sampling parameters."""
    from vllm import SamplingParams

    outputs = llm.generate(
        [{"prompt_token_ids": request["prompt"]} for request in requests],
        [SamplingParams(**request["sampling"]) for request in requests],
        use_tqdm=False,
    )
    digests = {}
    if any("extra_args" in request["sampling"] for request in requests):
        digests = llm.collective_rpc("layercast_digests")[0]
    return [
        {
            "prompt_logprobs": None
            if output.prompt_logprobs is None
            else [best(entry) for entry in output.prompt_logprobs if entry is not None],
            "samples": [sample(completion) for completion in output.outputs],
            "cached": output.num_cached_tokens,
            "digests": digests.get(
                (request["sampling"].get("extra_args") or {}).get("layercast_digests")
            ),
        }
        for request, output in zip(requests, outputs, strict=True)
    ]


def sample(completion) -> dict:
    return {
        "tokens": list(completion.token_ids),
        "logprobs": [
            entry[token].logprob
            for entry, token in zip(completion.logprobs or [], completion.token_ids, strict=False)
        ],
        "top": [best(entry) for entry in completion.logprobs or []],
        "finish": completion.finish_reason,
    }


def best(entry) -> list:
    """Token and log-probability by rank; the one chosen comes last if it is none of the best."""
    ranked = sorted(entry.items(), key=lambda item: (-item[1].logprob, item[0]))
    return [[token, value.logprob] for token, value in ranked]


def metrics(llm) -> dict[str, float]:
    wanted = ("vllm:num_preemptions", "vllm:prefix_cache_hits")
    found = {}
    for metric in llm.get_metrics():
        if metric.name in wanted:
            found[metric.name] = found.get(metric.name, 0) + metric.value
    return found


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
