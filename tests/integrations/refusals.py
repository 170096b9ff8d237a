"""How a refusal is asserted: its type, its one line, its remedy."""

from __future__ import annotations

import json

import pytest
import torch

from layercast.errors import LayercastError

IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
LEFT = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])


def edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refusal(error, action):
    """The message of an error, which must be one line that ends in a remedy."""
    with pytest.raises(error) as caught:
        action()
    message = str(caught.value)
    assert isinstance(caught.value, LayercastError)
    assert "\n" not in message
    assert message.endswith((".", "..."))
    return message
