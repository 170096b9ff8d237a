from __future__ import annotations

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from audited_models import CONFIGS, save_checkpoint


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Architecture to the folder of its checkpoint."""
    root = tmp_path_factory.mktemp("audited")
    return {name: save_checkpoint(root / name, name) for name in CONFIGS}
