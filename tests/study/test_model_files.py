"""Contract under test: a model that cannot be had is one line; what decides answers is digested."""

from __future__ import annotations

from pathlib import Path

import pytest

from layercast.errors import PlanError
from layercast.study.model_files import digest_files, locate

DECISIVE = {
    "added_tokens.json",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
}
OTHERS = {"training_log.json", "evaluation.json", "README.md", "requirements.txt", "trainer.json"}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("~nobody-of-this-name/m", "no such user's home folder"),
        ("m" * 400, "File name too long"),
        ("/" + "m" * 400, "File name too long"),
        ("/no/such/folder", "no such folder"),
        ("nul\0byte", "no such folder"),
    ],
    ids=["home of nobody", "long name", "long path", "absent", "nul"],
)
def test_name_of_no_model_is_one_line(model: str, reason: str) -> None:
    with pytest.raises(PlanError) as caught:
        locate(model)
    assert reason in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400


def test_files_that_decide_answers_are_digested_and_no_others(tmp_path: Path) -> None:
    for name in DECISIVE | OTHERS:
        (tmp_path / name).write_text(name)
    assert set(digest_files(tmp_path)) == DECISIVE
