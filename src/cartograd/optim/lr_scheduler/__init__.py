"""Learning-rate schedules, with PyTorch's names, arguments and recursions.

A schedule writes `group["lr"]` (and `momentum` or `betas`), which are States, so a traced or
compiled step follows it without being traced again. Call `scheduler.step()` outside the trace.

>>> import cartograd as cg
>>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
>>> schedule = cg.optim.lr_scheduler.StepLR(opt, step_size=2, gamma=0.5)
>>> schedule.get_last_lr()
[1.0]
"""

from .base import LRScheduler
from .compose import ChainedScheduler, SequentialLR, warmup
from .cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from .cycles import CyclicLR, OneCycleLR
from .decay import (
    ConstantLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from .functions import LambdaLR, MultiplicativeLR
from .plateau import ReduceLROnPlateau

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "warmup",
]
