"""The model `layercast` of lm-eval: its Hugging Face model, with what depends on the batch ours."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import Collator
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from layercast import NUMERICS_VERSION, ops, testbed
from layercast.errors import UnsupportedError, ValueRangeError
from layercast.integrations.lm_eval.likelihoods import continuation_log_probabilities, score
from layercast.integrations.lm_eval.stopping import stop_texts
from layercast.integrations.transformers import LayerCastConfig, load
from layercast.integrations.transformers.loading import read_config

_REFUSED = {
    "softmax_dtype": "Log-probabilities are float32",
    "mixed_precision_dtype": "Arithmetic is always float32",
    "parallelize": "Give device= one device",
    "tp_plan": "One process evaluates",
    "peft": "Merge the adapter into the weights first",
    "delta": "Add the difference to the weights first",
    "autogptq": "Load the original, unquantised checkpoint",
    "gptqmodel": "Load the original, unquantised checkpoint",
    "gguf_file": "Load a safetensors checkpoint",
}
_Request = tuple[Any, list[int], list[int]]


class LayerCastLM(HFLM):  # type: ignore[misc]
    """A model whose results depend on the request alone, not on `--batch_size`.

    Tokenization, chat templates, windows, grouping, sorting and progress are lm-eval's.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        device: str | None = None,
        weight_dtype: str | None = None,
        kv_dtype: str | None = None,
        require: str | None = None,
        dtype: str | None = "auto",
        backend: str = "default",
        **options: Any,
    ) -> None:
        """Load it.

        Args:
            pretrained: As for `layercast.load`; "testbed" is the bundled model.
            device: "cpu", which is the default, or a CUDA device.
            weight_dtype: As for `layercast.load`.
            kv_dtype: As for `LayerCastConfig`.
            require: As for `layercast.load`.
            dtype: "auto" or "float32": the arithmetic has no other.
            backend: "default" or "causal".
            **options: Those of lm-eval's `hf`, where they do not change the arithmetic.

        Raises:
            UnsupportedError: An option that would, or that nobody knows.
            LayercastError: As `layercast.load`.
        """
        if dtype not in (None, "auto", "float32"):
            raise UnsupportedError(
                f"lm-eval: `dtype` must be left out of --model_args, got {dtype}: arithmetic is "
                f"always float32. Choose storage with weight_dtype={dtype}."
            )
        if backend not in ("default", "causal"):
            raise UnsupportedError(
                f"lm-eval: `backend` must be causal, got {backend}. Use --model hf for encoders."
            )
        for name, remedy in _REFUSED.items():
            if value := options.get(name):
                raise UnsupportedError(
                    f"lm-eval: `{name}` must be left out of --model_args, got {value}. {remedy}."
                )
        unknown = sorted(options.keys() - inspect.signature(HFLM).parameters.keys())
        if unknown:
            raise UnsupportedError(
                f"lm-eval: `{unknown[0]}` must be left out of --model_args: this model has no such "
                "option, and it would be ignored. Correct the name if it is misspelt."
            )
        self._storage = {"weight_dtype": weight_dtype, "kv_dtype": kv_dtype}
        self._require = require
        folder = str(testbed.path()) if pretrained == "testbed" else pretrained
        super().__init__(folder, device=device or "cpu", backend="causal", **options)

    def _create_model(
        self,
        pretrained: str,
        revision: str | None = None,
        trust_remote_code: bool | None = False,
        subfolder: str = "",
        **ignored: Any,
    ) -> None:
        """Called by HFLM; what it passes beside these has been refused or is its own default."""
        hub: dict[str, Any] = {"trust_remote_code": bool(trust_remote_code)}
        hub |= {"revision": revision} if revision not in (None, "main") else {}
        hub |= {"subfolder": subfolder} if subfolder else {}
        place = {} if self.device.type == "cpu" else {"device_map": str(self.device)}
        options = read_config(pretrained, **hub)[1].to_dict()
        options |= {name: value for name, value in self._storage.items() if value is not None}
        self._model = load(
            pretrained,
            quantization_config=LayerCastConfig(**options),
            require=self._require,
            **hub,
            **place,
        )

    def tok_batch_encode(
        self, strings: list[str], padding_side: str = "left", **options: Any
    ) -> tuple[Tensor, Tensor]:
        """Encode each text as if it were alone, then pad.

        HFLM looks at a batch's first text to decide whether a beginning-of-sequence token is
        added to all of them.
        """
        alone = [super(LayerCastLM, self).tok_batch_encode([text], **options) for text in strings]
        ids = [row[0][mask[0].bool()] for row, mask in alone]
        ones = [torch.ones_like(row) for row in ids]
        padding = self.tokenizer.pad_token_id
        return (
            pad_sequence(ids, True, padding_value=padding, padding_side=padding_side),
            pad_sequence(ones, True, padding_side=padding_side),
        )

    def _loglikelihood_tokens(
        self,
        requests: Sequence[_Request],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Score continuations, in batches; requests that differ in the last token share a row.

        Raises:
            ValueRangeError: A continuation does not fit into the model's length.
        """
        longest = max((len(tokens) for _, _, tokens in requests), default=0)
        if longest > self.max_length:
            raise ValueRangeError(
                f"lm-eval: a continuation must have at most {self.max_length} tokens, the length "
                f"of the model, got {longest}. Raise max_length in --model_args if the model goes "
                "further, or leave that problem out."
            )
        order = Collator(
            requests,
            sort_fn=lambda request: (-len(request[1] + request[2]), (*request[1], *request[2])),
            group_by="contexts" if self.logits_cache else None,
            group_fn=lambda request: request[1] + request[2][:-1],
        )
        results: list[tuple[float, bool]] = []
        quiet = disable_tqdm or self.rank != 0
        with tqdm(total=len(requests), disable=quiet, desc="Log-likelihoods") as bar:
            for chunk in order.get_batched(**self._batching(override_bs, len(order))):
                sequences = [(c + t)[-(self.max_length + 1) :] for _, c, t in chunk]
                lengths = [len(t) for _, _, t in chunk]
                rows = continuation_log_probabilities(self.model, sequences, lengths)
                for (names, context, tokens), row in zip(chunk, rows, strict=True):
                    for hit in order.get_cache(names, context, tokens, row[None]):
                        result = score(hit[2][0], hit[1])
                        results.append(result)
                        if hit[0] is not None:  # a window of a rolling request has no key
                            self.cache_hook.add_partial("loglikelihood", hit[0], result)
                        bar.update(1)
        originals: list[tuple[float, bool]] = order.get_original(results)
        return originals

    def _batching(self, override: int | None, count: int) -> dict[str, Any]:
        if self.batch_size != "auto":
            return {"n": self.batch_size}
        if override is not None or count == 0:
            return {"n": override or 0}
        self.batch_sizes: dict[int, int] = {}
        return {"n": 0, "batch_fn": self._batch_scheduler}

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """As HFLM; a request that is sampled again is drawn from the next seed."""
        times: Counter[str] = Counter()
        asked = []
        for request in requests:
            context, options = request.args
            if options.get("max_length") is not None:
                raise ValueRangeError(
                    f"lm-eval: `max_length` must be left out, got {options['max_length']}: it "
                    "counts padding, so that an answer would depend on its neighbours. Give "
                    "max_gen_toks."
                )
            key = repr((context, options))
            if times[key] and (options.get("do_sample") or options.get("temperature")):
                request = copy.copy(request)
                seed = int(options.get("seed") or 0) + times[key]
                request.arguments = (context, {**options, "seed": seed})
            times[key] += 1
            asked.append(request)
        answers: list[str] = super().generate_until(asked, disable_tqdm=disable_tqdm)
        return answers

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], **options: Any
    ) -> Tensor:
        """Called by `generate_until` of HFLM; the limit counts new tokens, not padding."""
        if not options.get("do_sample") and not options.get("temperature"):
            options["do_sample"] = False
            options.pop("temperature", None)
        answers: Tensor = self.model.generate(
            input_ids=context,
            max_new_tokens=max_length - context.shape[1],
            stopping_criteria=stop_texts(self.tokenizer, stop, context),
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
            **options,
        )
        return answers

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes into its results of the model, and the numerics."""
        return {
            **super().get_model_info(),
            "numerics_version": NUMERICS_VERSION,
            "isa": ops.isa(),
        }
