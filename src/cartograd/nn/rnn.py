"""Recurrent layers: RNN, LSTM and GRU, as one `scan` a layer and direction, and single cells.

The input's part of every gate is one matrix product for all steps; only the hidden state's part is
in the loop. Weights are PyTorch's: `weight_ih_l0` (gates * hidden, in), `weight_hh_l0`,
`bias_ih_l0`, `bias_hh_l0`, with `_reverse` for the backward direction; gates in the order input,
forget, cell, output (LSTM) and reset, update, new (GRU). All start uniform on
[-1/sqrt(hidden), 1/sqrt(hidden)).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .. import functional as F
from ..control import scan
from ..errors import ShapeError, UsageError
from ..functional._xp import xp
from ..graph import scope, where_called
from ..tensor import Tensor
from . import init
from .linear import new_parameter, require_positive
from .module import Module

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]

_GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}


# --- one step ------------------------------------------------------------------------------------


def _split(x: Tensor, parts: int) -> tuple[Tensor, ...]:
    return xp.split(x, x.shape[-1] // parts, axis=-1)


def _simple_step(mode: str, from_input: Tensor, from_hidden: Tensor) -> Tensor:
    total = from_input + from_hidden
    return xp.tanh(total) if mode == "RNN_TANH" else xp.relu(total)


def _lstm_step(from_input: Tensor, from_hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """(hidden, cell) after one step."""
    i, f, g, o = _split(from_input + from_hidden, 4)
    cell = xp.sigmoid(f) * cell + xp.sigmoid(i) * xp.tanh(g)
    return xp.sigmoid(o) * xp.tanh(cell), cell


def _gru_step(from_input: Tensor, from_hidden: Tensor, hidden: Tensor) -> Tensor:
    ri, zi, ni = _split(from_input, 3)
    rh, zh, nh = _split(from_hidden, 3)
    r, z = xp.sigmoid(ri + rh), xp.sigmoid(zi + zh)
    n = xp.tanh(ni + r * nh)
    return n + z * (hidden - n)


# --- layers --------------------------------------------------------------------------------------


class _Weights(NamedTuple):
    """The weights of one layer and direction; what it goes without is None."""

    ih: Tensor
    hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    hr: Tensor | None


class RNNBase(Module):
    """What RNN, LSTM and GRU share.

    >>> import cartograd as cg
    >>> cg.nn.GRU(2, 3, num_layers=2)
    GRU(2, 3, num_layers=2)
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        require_positive(name, hidden_size=hidden_size, num_layers=num_layers)
        if not 0.0 <= dropout <= 1.0:
            raise UsageError(
                f"{name}: dropout is a probability in [0, 1], not {dropout}{where_called()}"
            )
        if proj_size and (mode != "LSTM" or not 0 < proj_size < hidden_size):
            raise UsageError(
                f"{name}: proj_size is for LSTM, between 0 and hidden_size {hidden_size}, not "
                f"{proj_size}{where_called()}"
            )
        self.mode, self.input_size, self.hidden_size = mode, input_size, hidden_size
        self.num_layers, self.bias, self.batch_first = num_layers, bias, batch_first
        self.dropout, self.bidirectional, self.proj_size = dropout, bidirectional, proj_size
        rows, out = _GATES[mode] * hidden_size, proj_size or hidden_size
        directions = 2 if bidirectional else 1
        for layer in range(num_layers):
            width = input_size if layer == 0 else out * directions
            for suffix in self._suffixes(layer):
                shapes: dict[str, tuple[int, ...]] = {
                    f"weight_ih{suffix}": (rows, width),
                    f"weight_hh{suffix}": (rows, out),
                }
                if bias:
                    shapes |= {f"bias_ih{suffix}": (rows,), f"bias_hh{suffix}": (rows,)}
                if proj_size:
                    shapes[f"weight_hr{suffix}"] = (proj_size, hidden_size)
                for key, shape in shapes.items():
                    self.register_parameter(key, new_parameter(shape, dtype, device))
        self.reset_parameters()

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: 2 if self.bidirectional else 1]

    def reset_parameters(self) -> None:
        """Draw every weight again."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing: weights have no memory layout to arrange here."""

    def _weights(self, suffix: str) -> _Weights:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        found: list[Any] = [self._parameters.get(name + suffix) for name in names]
        return _Weights(*found)

    def _check(self, input: Tensor) -> None:
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            raise ShapeError(
                f"{type(self).__name__}: input must be (length, batch, {self.input_size}) or "
                f"(length, {self.input_size}), batch first with batch_first, not "
                f"{tuple(input.shape)}{where_called()}"
            )

    def _start(self, given: Tensor | None, width: int, input: Tensor, batched: bool) -> Tensor:
        """The first hidden state (layers * directions, batch, width), zero unless given."""
        count = self.num_layers * (2 if self.bidirectional else 1)
        batch = input.shape[1]
        if given is None:
            return xp.zeros((count, batch, width), dtype=input.dtype)
        expected = (count, batch, width) if batched else (count, width)
        if tuple(given.shape) != expected:
            raise ShapeError(
                f"{type(self).__name__}: the first hidden state has shape {tuple(given.shape)}, "
                f"{expected} is needed{where_called()}"
            )
        return given if batched else xp.expand_dims(given, axis=1)

    def _layers(
        self, x: Tensor, hidden: Tensor, cell: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """All layers over x (length, batch, in): the output, the last hidden and cell states."""
        last_hidden: list[Tensor] = []
        last_cell: list[Tensor] = []
        k = 0
        for layer in range(self.num_layers):
            outputs: list[Tensor] = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                with scope(suffix[1:]):
                    start = hidden[k], None if cell is None else cell[k]
                    y, h, c = self._loop(x, start, self._weights(suffix), direction == 1)
                outputs.append(y)
                last_hidden.append(h)
                if c is not None:
                    last_cell.append(c)
                k += 1
            x = outputs[0] if len(outputs) == 1 else xp.concat(outputs, axis=-1)
            if self.dropout and self.training and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, True)
        return x, xp.stack(last_hidden), xp.stack(last_cell) if last_cell else None

    def _loop(
        self, x: Tensor, start: tuple[Tensor, Tensor | None], w: _Weights, reverse: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        from_inputs = F.linear(x, w.ih, w.bias_ih)

        def step(carry: Any, from_input: Tensor) -> tuple[Any, Tensor]:
            hidden, cell = carry
            from_hidden = F.linear(hidden, w.hh, w.bias_hh)
            if self.mode == "LSTM":
                hidden, cell = _lstm_step(from_input, from_hidden, cell)
                if w.hr is not None:
                    hidden = F.linear(hidden, w.hr)
            elif self.mode == "GRU":
                hidden = _gru_step(from_input, from_hidden, hidden)
            else:
                hidden = _simple_step(self.mode, from_input, from_hidden)
            return (hidden, cell), hidden

        (hidden, cell), y = scan(step, start, from_inputs, reverse=reverse)
        return y, hidden, cell

    def _run(
        self, input: Tensor, hidden: Tensor | None, cell: Tensor | None, with_cell: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        self._check(input)
        batched = input.ndim == 3
        x = input if batched else xp.expand_dims(input, axis=1)
        if batched and self.batch_first:
            x = xp.swapaxes(x, 0, 1)
        h = self._start(hidden, self.proj_size or self.hidden_size, x, batched)
        c = self._start(cell, self.hidden_size, x, batched) if with_cell else None
        y, h, c = self._layers(x, h, c)
        if not batched:
            return (
                xp.squeeze(y, axis=1),
                xp.squeeze(h, axis=1),
                None if c is None else xp.squeeze(c, axis=1),
            )
        return (xp.swapaxes(y, 0, 1) if self.batch_first else y), h, c

    def extra_repr(self) -> str:
        """The sizes and what differs from the defaults."""
        text = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size:
            text += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if not self.bias:
            text += f", bias={self.bias}"
        if self.batch_first:
            text += f", batch_first={self.batch_first}"
        if self.dropout:
            text += f", dropout={self.dropout}"
        if self.bidirectional:
            text += f", bidirectional={self.bidirectional}"
        return text


class RNN(RNNBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu, in layers and both directions.

    Input (length, batch, in), (batch, length, in) with batch_first, or (length, in). Returns the
    outputs of the last layer and the last hidden states (layers * directions, batch, hidden).

    >>> import cartograd as cg
    >>> y, h = cg.nn.RNN(3, 5)(cg.zeros((7, 2, 3)))
    >>> y.shape, h.shape
    ((7, 2, 5), (1, 2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise UsageError(
                f"RNN: nonlinearity {nonlinearity!r} is neither 'tanh' nor 'relu'{where_called()}"
            )
        super().__init__(
            f"RNN_{nonlinearity.upper()}",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The outputs and the last hidden states."""
        y, hidden, _ = self._run(input, hx, None, False)
        return y, hidden


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), in layers and both directions.

    Input (length, batch, in), (batch, length, in) with batch_first, or (length, in). Returns the
    outputs of the last layer and (hidden, cell), each (layers * directions, batch, width). With
    proj_size the hidden state is projected to that width.

    >>> import cartograd as cg
    >>> y, (h, c) = cg.nn.LSTM(3, 5, bidirectional=True)(cg.zeros((7, 2, 3)))
    >>> y.shape, h.shape, c.shape
    ((7, 2, 10), (2, 2, 5), (2, 2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor | None]]:
        """The outputs, and the last hidden and cell states."""
        hidden, cell = (None, None) if hx is None else hx
        y, last_hidden, last_cell = self._run(input, hidden, cell, True)
        return y, (last_hidden, last_cell)


class GRU(RNNBase):
    """The gated recurrent unit (Cho et al. 2014), in layers and both directions.

    Input (length, batch, in), (batch, length, in) with batch_first, or (length, in). Returns the
    outputs of the last layer and the last hidden states (layers * directions, batch, hidden).

    >>> import cartograd as cg
    >>> y, h = cg.nn.GRU(3, 5, batch_first=True)(cg.zeros((2, 7, 3)))
    >>> y.shape, h.shape
    ((2, 7, 5), (1, 2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "GRU",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The outputs and the last hidden states."""
        y, hidden, _ = self._run(input, hx, None, False)
        return y, hidden


# --- cells ---------------------------------------------------------------------------------------


class RNNCellBase(Module):
    """What the cells share: weights `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`.

    >>> import cartograd as cg
    >>> cg.nn.LSTMCell(2, 3)
    LSTMCell(2, 3)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        require_positive(type(self).__name__, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows = num_chunks * hidden_size
        self.weight_ih = new_parameter((rows, input_size), dtype, device)
        self.weight_hh = new_parameter((rows, hidden_size), dtype, device)
        for name in ("bias_ih", "bias_hh"):
            value = new_parameter((rows,), dtype, device) if bias else None
            self.register_parameter(name, value)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every weight again."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _hidden(self, input: Tensor, given: Tensor | None) -> Tensor:
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise ShapeError(
                f"{type(self).__name__}: input must be (batch, {self.input_size}) or "
                f"({self.input_size},), not {tuple(input.shape)}{where_called()}"
            )
        shape = (*input.shape[:-1], self.hidden_size)
        if given is None:
            return xp.zeros(shape, dtype=input.dtype)
        if tuple(given.shape) != shape:
            raise ShapeError(
                f"{type(self).__name__}: the hidden state has shape {tuple(given.shape)}, {shape} "
                f"is needed{where_called()}"
            )
        return given

    def _parts(self, input: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return (
            F.linear(input, self.weight_ih, self.bias_ih),
            F.linear(hidden, self.weight_hh, self.bias_hh),
        )

    def extra_repr(self) -> str:
        """The sizes and what differs from the defaults."""
        text = f"{self.input_size}, {self.hidden_size}"
        if not self.bias:
            text += f", bias={self.bias}"
        if getattr(self, "nonlinearity", "tanh") != "tanh":
            text += f", nonlinearity={self.nonlinearity}"
        return text


class RNNCell(RNNCellBase):
    """One step of an RNN: (batch, in) and (batch, hidden) give (batch, hidden).

    >>> import cartograd as cg
    >>> cg.nn.RNNCell(3, 5)(cg.zeros((2, 3))).shape
    (2, 5)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise UsageError(
                f"RNNCell: nonlinearity {nonlinearity!r} is neither 'tanh' nor 'relu'"
                f"{where_called()}"
            )
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next hidden state."""
        parts = self._parts(input, self._hidden(input, hx))
        return _simple_step(f"RNN_{self.nonlinearity.upper()}", *parts)


class LSTMCell(RNNCellBase):
    """One step of an LSTM: (batch, in) and (hidden, cell) give (hidden, cell).

    >>> import cartograd as cg
    >>> h, c = cg.nn.LSTMCell(3, 5)(cg.zeros((2, 3)))
    >>> h.shape, c.shape
    ((2, 5), (2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The next hidden and cell states."""
        hidden, cell = (None, None) if hx is None else hx
        hidden, cell = self._hidden(input, hidden), self._hidden(input, cell)
        return _lstm_step(*self._parts(input, hidden), cell)


class GRUCell(RNNCellBase):
    """One step of a GRU: (batch, in) and (batch, hidden) give (batch, hidden).

    >>> import cartograd as cg
    >>> cg.nn.GRUCell(3, 5)(cg.zeros((2, 3))).shape
    (2, 5)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next hidden state."""
        hidden = self._hidden(input, hx)
        return _gru_step(*self._parts(input, hidden), hidden)
