"""The optimisers, options and schedules that are compared with PyTorch 2.13.

Used by the tests (against `torch_values.json`) and by `conformance/test_optim_torch.py` (against
PyTorch itself, which also checks that the file is what PyTorch gives).
"""

from __future__ import annotations

from typing import Any

import numpy as np

STEPS = 10
SHAPES = ((4, 3), (3,))
MATRICES = ((4, 3), (3, 4))

Case = tuple[str, str, dict[str, Any]]

_GRID: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = [
    (
        "SGD",
        {"lr": 0.1},
        [
            {},
            {"weight_decay": 0.05},
            {"momentum": 0.9},
            {"momentum": 0.9, "dampening": 0.3},
            {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05, "maximize": True},
            {"momentum": 0.8, "nesterov": True},
            {"momentum": 0.8, "nesterov": True, "weight_decay": 0.05, "maximize": True},
            {"maximize": True},
        ],
    ),
    (
        "Adam",
        {"lr": 0.05},
        [
            {},
            {"amsgrad": True},
            {"weight_decay": 0.1},
            {"weight_decay": 0.1, "amsgrad": True, "maximize": True},
            {"weight_decay": 0.1, "decoupled_weight_decay": True},
            {"betas": (0.5, 0.9), "eps": 1e-3},
            {"betas": (0.0, 0.99)},
        ],
    ),
    (
        "AdamW",
        {"lr": 0.05},
        [
            {},
            {"weight_decay": 0.2},
            {"weight_decay": 0.0},
            {"weight_decay": 0.2, "amsgrad": True},
            {"weight_decay": 0.2, "maximize": True},
        ],
    ),
    (
        "NAdam",
        {"lr": 0.05},
        [
            {},
            {"weight_decay": 0.1},
            {"weight_decay": 0.1, "decoupled_weight_decay": True},
            {"momentum_decay": 0.02, "betas": (0.8, 0.95)},
            {"maximize": True, "eps": 1e-4},
        ],
    ),
    (
        "RAdam",
        {"lr": 0.05},
        [
            {},
            {"weight_decay": 0.1},
            {"weight_decay": 0.1, "decoupled_weight_decay": True},
            {"betas": (0.8, 0.9)},
            {"betas": (0.5, 0.5)},
            {"maximize": True, "eps": 1e-3},
        ],
    ),
    (
        "Adamax",
        {"lr": 0.05},
        [{}, {"weight_decay": 0.1}, {"betas": (0.7, 0.9), "eps": 1e-3}, {"maximize": True}],
    ),
    (
        "RMSprop",
        {"lr": 0.02},
        [
            {},
            {"alpha": 0.8, "eps": 1e-3},
            {"centered": True},
            {"momentum": 0.9},
            {"momentum": 0.9, "centered": True, "weight_decay": 0.1, "maximize": True},
            {"weight_decay": 0.1},
        ],
    ),
    (
        "Adagrad",
        {"lr": 0.1},
        [
            {},
            {"lr_decay": 0.1},
            {"weight_decay": 0.1, "initial_accumulator_value": 0.5},
            {"maximize": True, "eps": 1e-2},
        ],
    ),
    (
        "Adadelta",
        {"lr": 1.0},
        [{}, {"rho": 0.7, "eps": 1e-3}, {"weight_decay": 0.1}, {"maximize": True, "lr": 0.5}],
    ),
    (
        "Muon",
        {"lr": 0.05},
        [
            {},
            {"nesterov": False, "weight_decay": 0.0},
            {"momentum": 0.7, "ns_steps": 3},
            {"adjust_lr_fn": "original"},
            {"adjust_lr_fn": "match_rms_adamw"},
            {"ns_coefficients": (2.0, -1.5, 0.5), "eps": 1e-3},
        ],
    ),
]


def label(name: str, options: dict[str, Any]) -> str:
    """A readable name for a case, and its key in the file of values."""
    return f"{name}({', '.join(f'{key}={value}' for key, value in options.items())})"


OPTIMIZERS: list[Case] = [
    (label(name, common | extra), name, common | extra)
    for name, common, extras in _GRID
    for extra in extras
]

# (label, class, arguments, optimiser it is tried with, its options)
SCHEDULES: list[tuple[str, str, dict[str, Any]]] = [
    ("step", "StepLR", {"step_size": 7, "gamma": 0.3}),
    ("multistep", "MultiStepLR", {"milestones": [3, 10, 10, 25], "gamma": 0.5}),
    ("exponential", "ExponentialLR", {"gamma": 0.93}),
    ("constant", "ConstantLR", {"factor": 0.3, "total_iters": 9}),
    ("linear", "LinearLR", {"start_factor": 0.2, "end_factor": 0.9, "total_iters": 11}),
    ("linear down", "LinearLR", {"start_factor": 1.0, "end_factor": 0.1, "total_iters": 20}),
    ("polynomial", "PolynomialLR", {"total_iters": 20, "power": 1.7}),
    ("cosine", "CosineAnnealingLR", {"T_max": 12, "eta_min": 0.01}),
    ("cosine 0", "CosineAnnealingLR", {"T_max": 30}),
    ("restarts", "CosineAnnealingWarmRestarts", {"T_0": 5, "T_mult": 2, "eta_min": 0.001}),
    ("restarts 1", "CosineAnnealingWarmRestarts", {"T_0": 6}),
    ("one cycle", "OneCycleLR", {"max_lr": 0.5, "total_steps": 40}),
    (
        "one cycle, three phases",
        "OneCycleLR",
        {"max_lr": [0.5, 0.1], "epochs": 4, "steps_per_epoch": 10, "three_phase": True},
    ),
    (
        "one cycle, linear",
        "OneCycleLR",
        {"max_lr": 0.5, "total_steps": 45, "anneal_strategy": "linear", "pct_start": 0.4},
    ),
    ("cyclic", "CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 5}),
    (
        "cyclic 2",
        "CyclicLR",
        {
            "base_lr": [0.01, 0.02],
            "max_lr": 0.1,
            "step_size_up": 5,
            "step_size_down": 3,
            "mode": "triangular2",
        },
    ),
    (
        "cyclic exp",
        "CyclicLR",
        {
            "base_lr": 0.01,
            "max_lr": 0.1,
            "step_size_up": 4,
            "mode": "exp_range",
            "gamma": 0.95,
            "cycle_momentum": False,
        },
    ),
]

METRICS = [5.0, 4.0, 4.0, 3.9999, 4.1, 4.2, 3.0, 3.1, 3.1, 3.1, 3.1, 3.1, 3.2, 2.9, 2.9, 2.95, 2.9]
PLATEAUS: list[tuple[str, dict[str, Any]]] = [
    ("plateau", {"factor": 0.5, "patience": 1}),
    ("plateau, cooldown", {"factor": 0.5, "patience": 0, "cooldown": 2}),
    ("plateau, max", {"mode": "max", "patience": 2, "threshold": 0.05}),
    ("plateau, abs", {"patience": 1, "threshold": 0.5, "threshold_mode": "abs", "min_lr": 0.02}),
    ("plateau, min lrs", {"patience": 0, "min_lr": [0.05, 0.01], "threshold": 0.0}),
]
SCHEDULE_STEPS = 39


def weights(shapes: tuple[tuple[int, ...], ...]) -> list[np.ndarray]:
    """Starting values of the parameters, float64."""
    return [
        np.cos(1.0 + np.arange(np.prod(shape)) * (1 + i)).reshape(shape)
        for i, shape in enumerate(shapes)
    ]


def gradient(step: int, index: int, value: np.ndarray) -> np.ndarray:
    """The gradient of a parameter at a step; it depends on the value, so that errors add up."""
    wave = np.sin(0.7 * step + np.arange(value.size) * (1.3 + index)).reshape(value.shape)
    return (wave + 0.2 * value).astype(value.dtype)
