from __future__ import annotations

import logging
import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from tiny_models import CONFIGS, save_checkpoint
from transformers import AutoModelForCausalLM

import layercast


@pytest.fixture(autouse=True)
def _two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Architecture to the folder of its checkpoint; Mistral's is in several shards."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        name: save_checkpoint(
            folder / name, name, max_shard_size="400KB" if name == "mistral" else "5GB"
        )
        for name in CONFIGS
    }


@pytest.fixture(scope="session")
def layercast_models(checkpoints):
    return {name: layercast.load(folder) for name, folder in checkpoints.items()}


@pytest.fixture(scope="session")
def stock_models(checkpoints):
    """(architecture, dtype) to the stock model."""
    return {
        (name, dtype): AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        for name, folder in checkpoints.items()
        for dtype in (torch.float32, torch.bfloat16)
    }


@pytest.fixture(scope="session", params=list(CONFIGS))
def every_architecture(request):
    return request.param


@pytest.fixture(scope="session", params=["llama", "qwen2", "qwen2_hybrid", "qwen3", "mistral"])
def architecture(request):
    """A few, for what does not depend on the architecture."""
    return request.param


@pytest.fixture(scope="session")
def model(layercast_models, architecture):
    return layercast_models[architecture]


@pytest.fixture
def folder(tmp_path):
    return save_checkpoint(tmp_path / "checkpoint", "llama")


@pytest.fixture
def llama(layercast_models):
    return layercast_models["llama"]


@pytest.fixture
def quiet_batching():
    """Keep transformers' manager from logging the errors that tests ask for."""
    logger = logging.getLogger("ContinuousBatchingLogger")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
