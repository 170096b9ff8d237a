"""Contract under test: beams are ranked by our log-probabilities, equals by the lower index."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from decoding_variants import PADDING, PROMPTS, padded
from forward_variants import same_bits

from layercast import ops
from layercast.errors import UnsupportedError
from layercast.integrations.transformers.beams import ContractSelection, LengthPenalty

STEPS = 12
ENDS = [5, 17, 30, 44, 58, 71]


@pytest.fixture(params=["llama", "mistral"])
def model(request, layercast_models):
    return layercast_models[request.param]


def search(model, prompts, *, padding=PADDING, num_beams=3, **options):
    """(tokens, bits of the score) of each answer, best first for each prompt."""
    inputs = padded(prompts, padding)
    options = {"num_beams": num_beams, "max_new_tokens": STEPS, **options}
    out = model.generate(
        **inputs,
        **options,
        pad_token_id=padding,
        output_scores=True,
        return_dict_in_generate=True,
    )
    found = []
    scores = out.sequences_scores.view(torch.int32).tolist()
    for row, score in zip(out.sequences[:, inputs["input_ids"].shape[1] :], scores, strict=True):
        tokens = row.tolist()
        ends = options.get("eos_token_id") or ()
        end = next((i for i, token in enumerate(tokens) if token in ends), len(tokens) - 1)
        found.append((tokens[: end + 1], score))
    return found


def written_out(model, prompt, *, num_beams=3, ends=(), length_penalty=1.0):
    """Beam search of one prompt in plain Python, one forward pass a beam and step, no cache."""
    f32 = np.float32
    running, finished = [(f32(0.0), [])], []
    for step in range(1, STEPS + 1):
        candidates = []
        for score, tokens in running:
            with torch.inference_mode():
                logits = model(torch.tensor([prompt + tokens]), use_cache=False).logits[:, -1]
            row = ops.log_softmax(logits)[0].numpy()
            candidates += [(score + row[v], [*tokens, v]) for v in range(len(row))]
        # Python's sort is stable: equals stay in order of beam and token.
        keep = max(2, 1 + len(ends)) * num_beams
        candidates = sorted(candidates, key=lambda c: -float(c[0]))[:keep]
        stops = [tokens[-1] in ends or step == STEPS for _, tokens in candidates]
        penalty = f32(float(step) ** length_penalty)
        for (score, tokens), stop in list(zip(candidates, stops, strict=True))[:num_beams]:
            if stop:
                finished.append((f32(score) / penalty, tokens))
        finished = sorted(finished, key=lambda c: -float(c[0]))[:num_beams]
        running = [c for c, stop in zip(candidates, stops, strict=True) if not stop][:num_beams]
        if not running:
            break
        best = running[0][0] / penalty
        if len(finished) == num_beams and not best > finished[-1][0]:
            break
    return [(tokens, int(score.view(np.int32))) for score, tokens in finished]


@pytest.mark.parametrize(
    "options", [{}, {"length_penalty": 2.0}, {"ends": ENDS}], ids=["plain", "penalty", "ends"]
)
def test_beam_search_is_the_one_written_out(model, options):
    ends = options.get("ends", [])
    penalty = options.get("length_penalty", 1.0)
    for prompt in PROMPTS[:2]:
        got = search(
            model,
            [prompt],
            num_return_sequences=3,
            length_penalty=penalty,
            eos_token_id=ends or None,
        )
        assert got == written_out(model, prompt, ends=ends, length_penalty=penalty)


@pytest.mark.parametrize(
    "options",
    [
        {"num_return_sequences": 2},
        {"eos_token_id": ENDS, "length_penalty": 0.6},
        {"eos_token_id": ENDS, "early_stopping": True},
        {"eos_token_id": ENDS, "early_stopping": "never", "length_penalty": 0.0},
        {"cache_implementation": "static"},
        {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "renormalize_logits": True},
    ],
    ids=["best two", "penalty", "early", "never", "static", "processors"],
)
def test_beam_search_is_batch_and_padding_invariant(model, options):
    number = options.get("num_return_sequences", 1)
    together = search(model, PROMPTS, **options)
    backwards = search(model, PROMPTS[::-1], padding=0, **options)
    for row, prompt in enumerate(PROMPTS):
        turned = len(PROMPTS) - 1 - row
        alone = search(model, [prompt], **options)
        assert alone == together[row * number : (row + 1) * number]
        assert alone == backwards[turned * number : (turned + 1) * number]


def test_stock_beam_scores_are_not_batch_invariant(stock_models):
    # The control: the same comparison on stock arithmetic differs in some score.
    torch.set_num_threads(1)  # stock operators on two busy cores are slower on two

    def differs(stock):
        together = search(stock, PROMPTS)
        return together != [search(stock, [prompt])[0] for prompt in PROMPTS]

    assert any(differs(stock) for stock in stock_models.values())


class TestSelection:
    def test_equal_scores_are_taken_by_the_lower_index(self):
        generator = torch.Generator().manual_seed(0)
        scores = torch.randint(0, 12, (16, 400), generator=generator).float()
        expected = [sorted(range(400), key=lambda i, r=r: (-float(r[i]), i))[:9] for r in scores]
        with ContractSelection():
            assert torch.topk(scores, k=9)[1].tolist() == expected
        # The control: without it, torch takes others.
        assert torch.topk(scores, k=9)[1].tolist() != expected

    def test_log_softmax_is_the_contracts(self):
        scores = torch.randn(64, 500, generator=torch.Generator().manual_seed(0))
        expected = ops.log_softmax(scores)
        with ContractSelection():
            for function in (torch.log_softmax, torch.nn.functional.log_softmax):
                assert same_bits(function(scores, dim=-1), expected)
            assert same_bits(scores.log_softmax(-1), expected)
        assert not same_bits(torch.log_softmax(scores, dim=-1), expected)

    def test_other_axes_are_refused(self):
        with ContractSelection(), pytest.raises(UnsupportedError, match="dim=0"):
            torch.topk(torch.zeros(4, 4), 2, dim=0)
        with ContractSelection(), pytest.raises(UnsupportedError, match="largest"):
            torch.topk(torch.zeros(4, 4), 2, largest=False)

    def test_powers_of_lengths_are_correctly_rounded(self):
        for length in range(1, 400):
            assert length ** LengthPenalty(0.5) == math.sqrt(length)  # IEEE, unlike pow
            assert length ** LengthPenalty(2.0) == length * length
            assert length ** LengthPenalty(-1.0) == 1 / length
            assert length ** LengthPenalty(0.0) == 1.0

    def test_transition_scores_are_the_contracts(self, layercast_models):
        model = layercast_models["llama"]
        out = model.generate(
            **padded(PROMPTS),
            max_new_tokens=5,
            pad_token_id=PADDING,
            output_logits=True,
            return_dict_in_generate=True,
        )
        got = model.compute_transition_scores(out.sequences, out.logits, normalize_logits=True)
        rows = ops.log_softmax(torch.stack(out.logits, dim=1))
        assert same_bits(got, rows.gather(2, out.sequences[:, -5:, None])[..., 0])
