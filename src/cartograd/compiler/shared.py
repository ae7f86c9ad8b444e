"""What lowering keeps: places of buffers, functions, and what those of one module share."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .ir import Module
from .kernels.loops import NestCode
from .kernels.strided import KernelCode
from .options import Options
from .program import BufferInfo, HostCall, KernelInfo

__all__ = ["Function", "Place", "Shared"]


class Place(NamedTuple):
    """Where a buffer is: an entry of the function's pointer table, and bytes from it."""

    table: int
    offset: int = 0


@dataclass(slots=True)
class Shared:
    """What the functions of one module have in common."""

    module: Module
    cpu: Any
    options: Options
    constants: list[np.ndarray[Any, Any]] = field(default_factory=list[Any])
    hosts: list[HostCall] = field(default_factory=list[HostCall])
    infos: list[KernelInfo] = field(default_factory=list[KernelInfo])
    buffers: list[BufferInfo] = field(default_factory=list[BufferInfo])
    nests: dict[Hashable, NestCode] = field(default_factory=dict[Hashable, NestCode])
    opaques: dict[Hashable, KernelCode] = field(default_factory=dict[Hashable, KernelCode])
    jobs: set[str] = field(default_factory=set[str])
    constants_at: int = 0  # of the entry's table
    functions: int = 0


class Function(NamedTuple):
    """A lowered graph: its name, the length of its table, and the arena that it needs."""

    name: str
    table: int
    arena: int
    fails: bool
