"""Example inputs of an op, from which its tests are generated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One application of an op: float64 (or other) arrays, and the op's params.

    `diff` lists the inputs to differentiate (None: every floating one). `atol` is how far off a
    derivative may be by rounding inside the op alone, where it is zero by cancellation.

    >>> Sample((np.ones(3),)).params
    {}
    """

    args: tuple[np.ndarray[Any, Any], ...]
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    diff: tuple[int, ...] | None = None
    atol: float = 0.0
