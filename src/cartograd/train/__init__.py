"""Training: the loop, its metrics and callbacks, and checkpoints that survive a crash."""

from __future__ import annotations

from .checkpoint import (
    Checkpoint,
    DamagedCheckpointError,
    latest_good,
    list_checkpoints,
    load_checkpoint,
    load_latest,
    save_checkpoint,
)

__all__ = [
    "Checkpoint",
    "DamagedCheckpointError",
    "latest_good",
    "list_checkpoints",
    "load_checkpoint",
    "load_latest",
    "save_checkpoint",
]
