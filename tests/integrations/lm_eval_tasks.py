"""Local tasks of lm-eval over the bundled model's problems: one for each kind of request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.tasks import TaskManager

from layercast import testbed
from layercast.integrations.lm_eval.command import register

LIKELIHOODS = ("own_choice", "own_rolling")
TASKS = (*LIKELIHOODS, "own_generate", "own_sampled")
_HEAD = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder}/problems.jsonl
test_split: test
"""
_CHOICE = """
output_type: multiple_choice
doc_to_text: "{{question}} The answer is"
doc_to_choice: "{{choices}}"
doc_to_target: 0
metric_list:
  - metric: acc
    higher_is_better: true
"""
_ROLLING = """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: word_perplexity
    higher_is_better: false
"""
_GENERATE = """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
repeats: %s
generation_kwargs:
  until: ["So the"]
  max_gen_toks: 24
  %s
metric_list:
  - metric: exact_match
    higher_is_better: true
filter_list:
  - name: all
    filter:
      - function: take_first
"""
_KINDS = {
    "own_choice": _CHOICE,
    "own_rolling": _ROLLING,
    "own_generate": _GENERATE % (1, "do_sample: false"),
    "own_sampled": _GENERATE % (2, "do_sample: true\n  temperature: 1.0\n  seed: 5"),
}


def write_tasks(folder: Path, problems: int = 12) -> Path:
    """Write the tasks and their data.

    Contexts have different lengths; some choices are one token longer than others, some share all
    but their last token; some texts are longer than the window that the tests choose.
    """
    folder.mkdir()
    with (folder / "problems.jsonl").open("w") as file:
        for number, problem in enumerate(testbed.problems()[:problems]):
            right = int(problem.answer)
            row = {
                "question": problem.question,
                "answer": problem.answer,
                "choices": [f" {right + delta}" for delta in (0, 1, -3, 100)],
                "text": (problem.question * 3)[: 900 if number % 4 == 0 else 20 + 13 * number],
            }
            file.write(json.dumps(row) + "\n")
    for name, kind in _KINDS.items():
        (folder / f"{name}.yaml").write_text(_HEAD.format(name=name, folder=folder) + kind)
    return folder


def answers(
    folder: Path, model: str, batch_size: int, tasks: Sequence[str] = TASKS, **model_args: Any
) -> dict[str, list[Any]]:
    """What a model answers to every request, by task: floats keep their bits."""
    register()
    results = lm_eval.simple_evaluate(
        model=model,
        model_args={"pretrained": str(testbed.path()), "max_length": 256, **model_args},
        tasks=list(tasks),
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        batch_size=batch_size,
        device="cpu",
        bootstrap_iters=0,
    )
    return {
        task: [sample["resps"] for sample in sorted(samples, key=lambda s: s["doc_id"])]
        for task, samples in results["samples"].items()
    }
