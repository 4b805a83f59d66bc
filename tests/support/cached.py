"""Weights that timm has by a name, in a Hugging Face cache that no network is behind."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save

from ray_ns.models.files import WEIGHTS

PUBLISHED = "test_efficientnet.r160_in1k"


def cached(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make ``hub`` the cache of this process, with weights by that name; returns their file."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    kept = hub / f"models--timm--{PUBLISHED}"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs/main").write_text("0" * 40)
    path = kept / "snapshots" / ("0" * 40) / WEIGHTS
    path.parent.mkdir(parents=True)
    torch.manual_seed(0)
    path.write_bytes(save(timm.create_model("test_efficientnet").state_dict()))
    return path
