"""llama.cpp as an engine, run by the environment of `make peers`.

python -m peers.llama_cpp_process FOLDER VARIANT THREADS SEQUENCES

Sequences share each call of `llama_decode`. Keys and values are kept in F32; flash attention is
left at llama.cpp's own choice, as are all settings that are not named here.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import llama_cpp
import numpy as np

from peers.protocol import clock, logprob_bits, row_digest, serve, timed

WEIGHTS = {"llama_cpp_bf16": "BF16", "llama_cpp_f32": "F32"}
#: Tokens of a sequence, and of a call: all prompts of a batch at once.
CONTEXT, BATCH = 512, 4096
GGML_TYPE_F32 = 0


class LlamaEngine:
    """A model and a context for several sequences."""

    def __init__(self, path, threads, sequences):
        self._model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise SystemExit(f"llama.cpp does not load {path.name}")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = CONTEXT * sequences
        parameters.n_batch = BATCH
        parameters.n_seq_max = sequences
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.type_k = parameters.type_v = GGML_TYPE_F32
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise SystemExit("llama.cpp makes no context for so many sequences")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(
            llama_cpp.llama_model_get_vocab(self._model)
        )
        self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        self._settings = {
            "threads": threads,
            "n_ubatch": parameters.n_ubatch,
            "flash_attention": {-1: "auto", 0: "off", 1: "on"}[parameters.flash_attn_type],
            "kv_cache": "F32",
            "kv_unified": parameters.kv_unified,
        }

    def facts(self):
        """Return what bears on speed and bits."""
        return {
            "engine": f"llama.cpp of llama-cpp-python {metadata.version('llama-cpp-python')}",
            "system": llama_cpp.llama_print_system_info().decode().strip(),
            **self._settings,
        }

    def generate(self, prompts, steps):
        """Time a prefill and decode steps."""
        began = clock()
        times = []
        self._begin()
        logits = self._step({i: (0, prompt) for i, prompt in enumerate(prompts)})
        length = len(prompts[0])
        for step in range(steps + 2):
            tokens = {i: int(np.argmax(row)) for i, row in logits.items()}
            times.append(clock())
            if step < steps + 1:
                logits = self._step({i: (length + step, [t]) for i, t in tokens.items()})
        return timed(began, times)

    def answer(self, prompts, max_new_tokens, ends):
        """Answer all prompts as one batch, greedily; digests are of rows of logits."""
        found = {"tokens": [[] for _ in prompts], "logprob_bits": [[] for _ in prompts]}
        found["digests"] = [[] for _ in prompts]
        self._begin()
        logits = self._step({i: (0, prompt) for i, prompt in enumerate(prompts)})
        while logits:
            following = {}
            for i, row in logits.items():
                token = int(np.argmax(row))
                found["tokens"][i].append(token)
                found["logprob_bits"][i].append(logprob_bits(log_softmax_at(row, token)))
                found["digests"][i].append(row_digest(row))
                count = len(found["tokens"][i])
                if token not in ends and count < max_new_tokens:
                    following[i] = (len(prompts[i]) + count - 1, [token])
            logits = self._step(following) if following else {}
        return found

    def _begin(self):
        llama_cpp.llama_memory_clear(self._memory, True)

    def _step(self, tokens):
        """Compute tokens and return each sequence's logits behind its last one.

        Args:
            tokens: Of each sequence, the position of the first and the tokens.
        """
        batch, count, last = self._batch, 0, {}
        for sequence, (position, ids) in tokens.items():
            for offset, token in enumerate(ids):
                batch.token[count] = token
                batch.pos[count] = position + offset
                batch.n_seq_id[count] = 1
                batch.seq_id[count][0] = sequence
                batch.logits[count] = offset == len(ids) - 1
                count += 1
            last[sequence] = count - 1
        batch.n_tokens = count
        status = llama_cpp.llama_decode(self._context, batch)
        if status:
            raise SystemExit(f"llama_decode ended with {status}")
        return {sequence: self._logits(index) for sequence, index in last.items()}

    def _logits(self, index):
        pointer = llama_cpp.llama_get_logits_ith(self._context, index)
        kind = ctypes.POINTER(ctypes.c_float * self._vocabulary)
        # The memory is llama.cpp's, which writes the next step's there.
        return np.ctypeslib.as_array(ctypes.cast(pointer, kind).contents).copy()


def log_softmax_at(row, token):
    """Return a token's log-probability, in float64: a function of its row of logits alone."""
    wide = row.astype(np.float64)
    largest = wide.max()
    return float(wide[token] - largest - np.log(np.exp(wide - largest).sum()))


def main(folder, variant, threads, sequences):
    """Write the GGUF file if it is not there, and serve."""
    dtype = WEIGHTS[variant]
    path = Path(folder) / f"{dtype}.gguf"
    if not path.exists():
        # Not in this process: what it takes of memory would count as the engine's.
        program = [sys.executable, "-m", "peers.gguf_file"]
        subprocess.run([*program, folder, path, dtype], check=True, stdout=sys.stderr)
    llama_cpp.llama_backend_init()

    def load(loading):
        loading()
        return LlamaEngine(path, int(threads), int(sequences))

    serve(load)


if __name__ == "__main__":
    main(*sys.argv[1:])
