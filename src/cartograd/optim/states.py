"""The state that an optimiser keeps for each parameter: named States, changed only by assigning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import namespace as xp
from ..errors import UsageError
from ..tensor import State, Tensor
from .rule import Slot, Values, compute_dtype

__all__ = ["States"]

Cells = dict[str, State]


class States(Mapping[State, Cells]):
    """The State cells of each parameter, by the parameter itself (not by its value).

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.ones(2))
    >>> opt = cg.optim.SGD([p], momentum=0.9)
    >>> opt.state[p]["momentum_buffer"].shape
    (2,)
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[State, Cells]] = {}

    def __getitem__(self, p: State) -> Cells:
        return self._entries[id(p)][1]

    def __iter__(self) -> Iterator[State]:
        return (p for p, _ in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, p: object) -> bool:
        return id(p) in self._entries

    def prepare(self, p: State, slots: Mapping[str, Slot]) -> Cells:
        """The cells of a parameter, made with their initial values where they are missing."""
        cells = self._entries.setdefault(id(p), (p, {}))[1]
        for name, slot in slots.items():
            if name not in cells:
                cells[name] = State(_initial(p, slot))
        return cells

    @staticmethod
    def read(cells: Cells, slots: Mapping[str, Slot], traced: bool) -> Values:
        """The cells' values for an update rule: scalars are Python floats, save in a trace."""
        return {
            name: float(cells[name].numpy()) if slot.scalar and not traced else cells[name]
            for name, slot in slots.items()
        }

    @staticmethod
    def write(cells: Cells, values: Values) -> None:
        """Assign what an update rule returned."""
        for name, value in values.items():
            cells[name].assign(value)

    def save(self, p: State) -> Values | None:
        """Snapshots of a parameter's cells, or None where it has none."""
        if p not in self or not self[p]:
            return None
        return {name: xp.asarray(cell.numpy().copy()) for name, cell in self[p].items()}

    def plan_load(
        self,
        p: State,
        position: int,
        entry: Mapping[str, Any] | None,
        slots: Mapping[str, Slot],
    ) -> Callable[[], None]:
        """Check a saved entry against the slots, and return the function that assigns it.

        What the entry lacks, or has as None, goes back to its initial value; but a missing step
        count beside a saved buffer counts as 1, for PyTorch's SGD keeps none.
        """
        given = {k: v for k, v in (entry or {}).items() if v is not None}
        values = {name: _initial(p, slot) for name, slot in slots.items()}
        if given and "step" in values and "step" not in given:
            values["step"] = np.asarray(1.0)
        for name, value in given.items():
            if name not in slots:
                raise UsageError(
                    f"the saved state of parameter {position} has an entry {name!r} that this "
                    f"optimiser does not keep (it keeps {', '.join(slots) or 'none'})"
                )
            array = np.asarray(value.numpy() if isinstance(value, Tensor) else value)
            if array.shape != values[name].shape:
                raise UsageError(
                    f"the saved state {name!r} of parameter {position} has shape {array.shape}, "
                    f"but {values[name].shape} is needed"
                )
            values[name] = array.astype(values[name].dtype)

        def load() -> None:
            cells = self.prepare(p, slots)
            for name, value in values.items():
                cells[name].assign(value)

        return load


def _initial(p: State, slot: Slot) -> np.ndarray[Any, np.dtype[Any]]:
    if slot.scalar:
        return np.asarray(slot.fill, np.float64)
    return np.full(p.shape, slot.fill, compute_dtype(p))
