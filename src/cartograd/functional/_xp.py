"""The functions of `cg` under one name, as array API code has them: `xp.where(...)`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ..namespace import FUNCTIONS

__all__ = ["xp"]

xp: Any = SimpleNamespace(**FUNCTIONS)
