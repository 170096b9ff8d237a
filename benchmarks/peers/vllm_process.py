"""vLLM as an engine, stock or with layercast's plugin; run by the environment of `make peers`.

python -m peers.vllm_process FOLDER VARIANT THREADS SEQUENCES
"""

from __future__ import annotations

import itertools
import os
import sys

from peers.protocol import clock, logprob_bits, serve, timed

OPTIONS = {
    "vllm_layercast": {"dtype": "float32", "quantization": "layercast"},
    "vllm_bf16": {"dtype": "bfloat16"},
    "vllm_fp32": {"dtype": "float32"},
}
#: Of `vllm.LLM`, alike for all variants; what is not named is as vLLM sets it.
SHARED = {
    "skip_tokenizer_init": True,
    "max_model_len": 512,
    "max_num_batched_tokens": 256,
    "enable_prefix_caching": False,
    "kv_cache_memory_bytes": 2**30,
    "disable_log_stats": True,
    "seed": 0,
}
SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


class VllmEngine:
    """An engine in this process, whose steps are taken one by one."""

    def __init__(self, llm, variant):
        self._llm = llm
        self._ours = variant == "vllm_layercast"
        self._count = itertools.count()

    def facts(self):
        """Return what bears on speed and bits."""
        import torch

        from layercast import ops
        from layercast.integrations.vllm.versions import installed_version

        config = self._llm.llm_engine.vllm_config
        return {
            "engine": f"vLLM {installed_version()}, torch {torch.__version__}",
            "layercast_isa": ops.isa() if self._ours else None,
            "threads": torch.get_num_threads(),
            "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "compilation": str(config.compilation_config.mode),
            "settings": {**SHARED, "max_num_seqs": config.scheduler_config.max_num_seqs},
        }

    def generate(self, prompts, steps):
        """Time a prefill and decode steps."""
        from vllm import SamplingParams

        sampling = SamplingParams(
            temperature=0.0, max_tokens=steps + 2, ignore_eos=True, detokenize=False
        )
        engine = self._llm.llm_engine
        began = clock()
        for prompt in prompts:
            engine.add_request(str(next(self._count)), {"prompt_token_ids": prompt}, sampling)
        have, times = {}, []
        while engine.has_unfinished_requests():
            for output in engine.step():
                have[output.request_id] = len(output.outputs[0].token_ids)
            now = clock()
            least = min(have.values()) if len(have) == len(prompts) else 0
            times += [now] * (least - len(times))
        return timed(began, times)

    def answer(self, prompts, max_new_tokens, ends):
        """Answer all prompts, given at once, greedily."""
        from vllm import SamplingParams

        labels = [str(next(self._count)) for _ in prompts]
        sampling = [
            SamplingParams(
                temperature=0.0,
                max_tokens=max_new_tokens,
                stop_token_ids=ends,
                ignore_eos=True,
                detokenize=False,
                logprobs=0,
                extra_args={"layercast_digests": label} if self._ours else None,
            )
            for label in labels
        ]
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        outputs = self._llm.generate(asked, sampling, use_tqdm=False)
        answers = [output.outputs[0] for output in outputs]
        digests = None
        if self._ours:
            kept = self._llm.collective_rpc("layercast_digests")[0]
            # 7 bytes of the 8: as many as the other engines' digests have.
            digests = [[digest >> 8 for digest in kept[label]] for label in labels]
        return {
            "tokens": [list(answer.token_ids) for answer in answers],
            "logprob_bits": [
                [
                    logprob_bits(entry[token].logprob)
                    for token, entry in zip(answer.token_ids, answer.logprobs, strict=True)
                ]
                for answer in answers
            ],
            "digests": digests,
        }


def main(folder, variant, threads, sequences):
    """Serve with so many sequences at once at most."""
    # A cache of compiled code beside the checkpoint: none that an earlier run has filled.
    cache = os.path.join(folder, "vllm-cache")
    os.environ.update(SETTINGS, OMP_NUM_THREADS=threads, VLLM_CACHE_ROOT=cache)
    from vllm import LLM

    def load(loading):
        loading()
        options = SHARED | OPTIONS[variant]
        return VllmEngine(LLM(folder, max_num_seqs=int(sequences), **options), variant)

    serve(load)


if __name__ == "__main__":
    main(*sys.argv[1:])
