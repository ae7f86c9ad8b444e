"""Optimisers, with PyTorch's names, arguments and state; `functional` has them as pure functions.

>>> import cartograd as cg
>>> sorted(cg.optim.SGD.rule.options)
['dampening', 'lr', 'maximize', 'momentum', 'nesterov', 'weight_decay']
"""

from . import functional, lr_scheduler, swa_utils
from .adadelta import Adadelta
from .adagrad import Adagrad
from .adam import Adam, AdamW
from .adamax import Adamax
from .lbfgs import LBFGS
from .lion import Lion
from .muon import Muon
from .nadam import NAdam
from .optimizer import Optimizer
from .param_group import ParamGroup
from .radam import RAdam
from .rmsprop import RMSprop
from .sgd import SGD

__all__ = [
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "Muon",
    "NAdam",
    "Optimizer",
    "ParamGroup",
    "RAdam",
    "RMSprop",
    "functional",
    "lr_scheduler",
    "swa_utils",
]
