"""Whether an engine's answers and log-probabilities depend on batch and threads: bundled model."""

from __future__ import annotations

import json
import struct

import numpy as np

from layercast.study.engines.transformers import encode
from layercast.study.metrics import (
    bit_div_percent,
    compared_positions,
    div_percent,
    divergence_indices,
    first_bit_divergence,
    mean_divergence_index,
)
from layercast.testbed import path, problems
from peers.engines import start
from peers.record import DIVERGENCE

#: An engine whose log-probabilities are as far from stock FP32's computes another model: bfloat16
#: rounds to 2^-9 of a logit, and the logits of the bundled model are below 32.
SAME_MODEL = 0.25


def prompts_of(count):
    """Return the token ids of the first problems of the bundled test split, and the end tokens."""
    conversations = [[{"role": "user", "content": p.question}] for p in problems("test", count)]
    ids = [list(prompt.token_ids) for prompt in encode(path(), conversations)]
    end = json.loads((path() / "config.json").read_text())["eos_token_id"]
    return ids, [end]


def answers(engine, folder, prompts, ends, *, batches, threads, max_new_tokens, on_stage=print):
    """Answer all prompts under each configuration.

    Args:
        engine: Which.
        folder: Of the checkpoint; engines may write files of their own there.
        prompts: Token ids.
        ends: End-of-sequence tokens.
        batches: Sequences decoded at once, one configuration each.
        threads: The same, of threads.
        max_new_tokens: The most of an answer.
        on_stage: Told each configuration.

    Returns:
        Configuration ("batch 8, 2 threads") to replies of the engine, joined over batches; and
        what the engine says of itself.
    """
    found, facts = {}, {}
    for count in threads:
        worker = start(engine, folder, count, max(batches))
        try:
            facts[str(count)] = worker.loaded["facts"]
            # One sequence on several threads takes as long as all the rest; it is left out.
            for batch in batches if count == min(threads) else [b for b in batches if b > 1]:
                label = f"batch {batch}, {count} thread{'s' * (count > 1)}"
                on_stage(f"{engine.label}: {label}")
                found[label] = joined(
                    worker.ask(
                        "answer",
                        prompts=prompts[begin : begin + batch],
                        max_new_tokens=max_new_tokens,
                        ends=ends,
                    )
                    for begin in range(0, len(prompts), batch)
                )
        finally:
            worker.close()
    return found, facts


def joined(replies):
    """Put the batches of a configuration together; what an engine does not give stays None."""
    whole = {"tokens": [], "logprob_bits": [], "digests": []}
    for reply in replies:
        for kind, values in reply.items():
            whole[kind] = None if values is None or whole[kind] is None else whole[kind] + values
    return whole


def compare(found):
    """Return how far an engine's answers move between configurations.

    Args:
        found: Of each configuration, `tokens`, `logprob_bits` of the tokens chosen and `digests`
            of whole rows (None where the engine gives no rows); each a list a problem.
    """
    replies = list(found.values())
    tokens = _by_problem(reply["tokens"] for reply in replies)
    indices = divergence_indices(tokens)
    chosen = bits_compared(_by_problem(reply["logprob_bits"] for reply in replies), indices)
    rows = None
    if all(reply["digests"] is not None for reply in replies):
        rows = bits_compared(_by_problem(reply["digests"] for reply in replies), indices)
    return {
        "configurations": list(found),
        "problems": len(tokens),
        "div_percent": div_percent(tokens),
        "div_index": mean_divergence_index(tokens),
        "logprobs": chosen,
        "rows": rows,
    }


def bits_compared(table, indices):
    """Return how many problems have a position whose bits differ, and what was compared.

    Args:
        table: Problems x configurations, each cell an integer a position.
        indices: Where each problem's answers part, or None. Up to there, and including it, the
            tokens before are the same, so that the bits should be.
    """
    pairs = list(zip(table, indices, strict=True))
    return {
        "problems_differing_percent": bit_div_percent(table, indices),
        "problems_differing": sum(first_bit_divergence(*pair) is not None for pair in pairs),
        "positions": sum(compared_positions(*pair) for pair in pairs),
    }


def against(found, other):
    """Return how far an engine's log-probabilities are from another's, where tokens are the same.

    Args:
        found: One configuration of an engine.
        other: The same of the other engine.

    Returns:
        `largest_difference` in nats and `median_difference`, over `positions`; and whether
        `tokens_equal` and `bits_equal`, everywhere.
    """
    differences = []
    for ours, theirs, a, b in zip(
        found["tokens"], other["tokens"], found["logprob_bits"], other["logprob_bits"], strict=True
    ):
        shared = 0
        while shared < min(len(ours), len(theirs)) and ours[shared] == theirs[shared]:
            shared += 1
        differences += [abs(_float(x) - _float(y)) for x, y in zip(a, b, strict=False)][:shared]
    return {
        "positions": len(differences),
        "largest_difference": float(np.max(differences, initial=0.0)),
        "median_difference": float(np.median(differences)) if differences else 0.0,
        "tokens_equal": found["tokens"] == other["tokens"],
        "bits_equal": found["logprob_bits"] == other["logprob_bits"],
    }


def entry(engine, found, facts, references):
    """Return an engine's entry of the record.

    Args:
        engine: Which.
        found: See `compare`.
        facts: What it says of itself.
        references: Name to the first configuration of other engines that is compared with.

    Raises:
        ValueError: It computes another model than stock FP32 (layercast, where that was not run).
    """
    first = next(iter(found.values()))
    comparisons = {name: against(first, other) for name, other in references.items()}
    stock = comparisons.get("stock_fp32") or comparisons.get("layercast")
    if stock is not None and (not stock["positions"] or stock["median_difference"] > SAME_MODEL):
        raise ValueError(
            f"{engine.label} must compute the bundled model, got log-probabilities that are "
            f"{stock['median_difference']:.3g} from those in FP32 in the median, over "
            f"{stock['positions']} positions. It is left out; look at how it loads the checkpoint."
        )
    return {
        "part": DIVERGENCE,
        "engines": {engine.name: {**compare(found), "against": comparisons, "facts": facts}},
    }


def _by_problem(by_configuration):
    return [list(cells) for cells in zip(*by_configuration, strict=True)]


def _float(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]
