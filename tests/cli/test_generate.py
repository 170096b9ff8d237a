"""Contract under test: `layercast generate` says the same bits alone and in a batch."""

import json
import subprocess
import sys

from layercast.testbed import problems

QUESTIONS = [problem.question for problem in problems("test", 3)]


def _generate(*words: str) -> list[dict]:
    command = [sys.executable, "-c", "from layercast.cli.main import main; main()", "generate"]
    result = subprocess.run(
        [*command, "testbed", "--json", "--max-new-tokens", "60", *words],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["answers"]


def test_answer_is_the_same_bits_alone_and_in_a_batch():
    words = [word for question in QUESTIONS for word in ("--prompt", question)]
    together = _generate(*words)
    for question, answer in zip(QUESTIONS, together, strict=True):
        (alone,) = _generate("--prompt", question)
        assert alone == answer


def test_sample_is_the_same_bits_alone_and_in_a_batch():
    sampling = ["--temperature", "0.7", "--top-p", "0.95", "--seed", "7", "--max-new-tokens", "30"]
    together = _generate(*sampling, "--prompt", QUESTIONS[0], "--prompt", QUESTIONS[1])
    (alone,) = _generate(*sampling, "--prompt", QUESTIONS[1])
    assert alone == together[1]
    # The control: another seed draws another answer.
    (other,) = _generate(*sampling, "--seed", "8", "--prompt", QUESTIONS[1])
    assert other["token_ids"] != alone["token_ids"]


def test_stock_bf16_is_told_apart_by_its_digests():
    # The control: other arithmetic gives other log-probabilities, so equal digests say something.
    (ours,) = _generate("--prompt", QUESTIONS[0])
    (stock,) = _generate("--prompt", QUESTIONS[0], "--precision", "bf16")
    assert ours["digests"][0] != stock["digests"][0]


def test_text_is_the_decoded_answer():
    command = [sys.executable, "-c", "from layercast.cli.main import main; main()", "generate"]
    words = ["testbed", "--prompt", QUESTIONS[0], "--max-new-tokens", "60"]
    result = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == _generate("--prompt", QUESTIONS[0])[0]["text"].strip()
