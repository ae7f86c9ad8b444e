"""Training: the loop, its metrics and callbacks, and checkpoints that survive a crash.

trainer = cg.train.Trainer(model, optimizer, loss, metrics=["accuracy"], out="runs/first")
trainer.fit(train_loader, val_loader)
trainer.test(test_loader)
"""

from __future__ import annotations

from .batches import Batch
from .callbacks import BestModel, Callback, EarlyStopping, LRSchedule, Run
from .checkpoint import (
    Checkpoint,
    DamagedCheckpointError,
    latest_good,
    list_checkpoints,
    load_checkpoint,
    load_latest,
    save_checkpoint,
)
from .ema import EMA
from .folder import RunFolder
from .loggers import CSVLogger, JSONLLogger
from .metrics import (
    F1,
    MAE,
    R2,
    RMSE,
    Accuracy,
    BitsPerByte,
    MeanLoss,
    Metric,
    Perplexity,
    TopKAccuracy,
)
from .progress import Progress
from .result import FitResult
from .step import TrainStep, gradient_norm
from .tensorboard import TensorBoard
from .trainer import Trainer

__all__ = [
    "EMA",
    "F1",
    "MAE",
    "R2",
    "RMSE",
    "Accuracy",
    "Batch",
    "BestModel",
    "BitsPerByte",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "DamagedCheckpointError",
    "EarlyStopping",
    "FitResult",
    "JSONLLogger",
    "LRSchedule",
    "MeanLoss",
    "Metric",
    "Perplexity",
    "Progress",
    "Run",
    "RunFolder",
    "TensorBoard",
    "TopKAccuracy",
    "TrainStep",
    "Trainer",
    "gradient_norm",
    "latest_good",
    "list_checkpoints",
    "load_checkpoint",
    "load_latest",
    "save_checkpoint",
]
