"""Contract under test: a name that can be no folder is one clear line."""

from __future__ import annotations

import pytest

import layercast
from layercast.errors import CheckpointError


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("~nobody-of-this-name/m", "no such user's home folder"),
        ("m" * 400, "File name too long"),
        ("/" + "m" * 400, "File name too long"),
    ],
    ids=["home of nobody", "long name", "long path"],
)
def test_name_that_can_be_no_folder_is_one_line(name: str, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason) as caught:
        layercast.load(name)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400
