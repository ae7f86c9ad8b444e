"""LLVM IR as text: typed values, straight-line code, loops and branches, and the module they make.

A `Builder` writes one function. Its values are scalars or vectors (`lanes`), typed by Cartograd's
dtypes, and its methods are what the `emit` of an op is written in. Half-precision numbers exist in
memory only: a load widens them to float32 and a store rounds them. Bools are i1 in a register and
one byte in memory. Scalars and Python numbers meet vectors by being repeated in every lane.

>>> import numpy as np
>>> module = Module()
>>> b = module.function("twice", ["p"])
>>> x = b.load(b.params["p"], np.dtype("float32"))
>>> b.store(b.mul(x, 2.0), b.params["p"])
>>> print(b.finish())
define internal void @twice(ptr noalias noundef %p) #0 {
entry:
  %1 = load float, ptr %p, align 4
  %2 = fmul float %1, 0x4000000000000000
  store float %2, ptr %p, align 4
  ret void
}
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..dtype import DType, bfloat16, bool_, float16, float32, int32, int64, kind_of

__all__ = ["Builder", "Index", "Module", "Value", "Variable", "clock_of", "register_dtype"]

_SCALAR = {
    "float32": "float", "float64": "double", "bool": "i1", "int8": "i8", "int16": "i16",
    "int32": "i32", "int64": "i64", "uint8": "i8", "uint16": "i16", "uint32": "i32",
    "uint64": "i64",
}  # fmt: skip
_SUFFIX = {
    "float": "f32", "double": "f64", "i1": "i1", "i8": "i8", "i16": "i16", "i32": "i32",
    "i64": "i64",
}  # fmt: skip
_HALF = (float16, bfloat16)
_IMPURE = ("load", "call", "atomicrmw", "cmpxchg")


def register_dtype(dtype: DType) -> DType:
    """The dtype in which values of a dtype are computed: float32 for the half-precision ones."""
    return float32 if dtype in _HALF else dtype


class Value(NamedTuple):
    """A value in a register: its LLVM name or literal, its dtype, and how many lanes it has."""

    text: str
    dtype: DType
    lanes: int = 1

    @property
    def type(self) -> str:
        """The LLVM type."""
        return type_of(self.dtype, self.lanes)


Index = int | Value
Operand = Value | int | float | bool


_types: dict[tuple[str, int], str] = {}  # a dtype's name takes NumPy 3 us to say


def type_of(dtype: DType, lanes: int = 1) -> str:
    """The LLVM type of a dtype in a register."""
    found = _types.get((dtype.char, lanes))
    if found is None:
        scalar = _SCALAR[dtype.name]
        found = scalar if lanes == 1 else f"<{lanes} x {scalar}>"
        _types[dtype.char, lanes] = found
    return found


@cache
def memory_type(dtype: DType, lanes: int = 1) -> str:
    """The LLVM type of a dtype in memory."""
    scalar = {"bool": "i8", "float16": "half", "bfloat16": "i16"}.get(dtype.name)
    scalar = scalar or _SCALAR[dtype.name]
    return scalar if lanes == 1 else f"<{lanes} x {scalar}>"


def literal(value: float | int | bool, dtype: DType) -> str:
    """A number as LLVM writes it: floats by the bits of the nearest double."""
    kind = kind_of(dtype)
    if kind == "bool":
        return "true" if value else "false"
    if kind == "floating":
        rounded = float(np.asarray(value, dtype))
        return f"0x{struct.unpack('<Q', struct.pack('<d', rounded))[0]:016X}"
    return str(int(value))


def clock_of(arch: str) -> str:
    """The intrinsic that reads the clock: on ARM, programs may not read the cycle counter.

    >>> clock_of("x86_64")
    'llvm.readcyclecounter'
    """
    return "llvm.readsteadycounter" if arch == "aarch64" else "llvm.readcyclecounter"


class Variable(NamedTuple):
    """A place on the stack for a value that changes; the optimiser keeps it in a register."""

    pointer: str
    dtype: DType
    lanes: int


class Module:
    """The functions, declarations and constant tables of one module."""

    def __init__(self) -> None:
        self.functions: list[str] = []
        self.declarations: dict[str, str] = {}
        self.tables: dict[bytes, tuple[str, str]] = {}
        self._shared: dict[Hashable, str] = {}

    def function(
        self,
        name: str,
        pointers: Sequence[str],
        integers: Sequence[str] = (),
        *,
        result: str = "void",
        public: bool = False,
    ) -> Builder:
        """Begin a function of pointers that do not overlap, then of 64-bit integers."""
        return Builder(self, name, pointers, integers, result=result, public=public)

    def shared(self, key: Hashable, write: Callable[[str], None]) -> str:
        """The name of a function that several kernels call; `write(name)` writes it, once."""
        if key not in self._shared:
            self._shared[key] = f"shared{len(self._shared)}"
            write(self._shared[key])
        return self._shared[key]

    def declare(self, name: str, result: str, args: Sequence[str]) -> None:
        """Declare a function of another module or an intrinsic."""
        if name not in self.declarations:
            self.declarations[name] = f"declare {result} @{name}({', '.join(args)})"

    def table(self, values: np.ndarray[Any, Any]) -> str:
        """A constant array of the module; its name."""
        key = values.dtype.str.encode() + values.tobytes()
        if key not in self.tables:
            name = f"@table{len(self.tables)}"
            kind = memory_type(values.dtype)
            items = ", ".join(f"{kind} {literal(v, values.dtype)}" for v in values.ravel().tolist())
            text = f"{name} = private constant [{values.size} x {kind}] [{items}], align 64"
            self.tables[key] = (name, text)
        return self.tables[key][0]

    def zeros(self, name: str, count: int) -> None:
        """A public array of 64-bit integers, zero at first."""
        text = f"@{name} = global [{max(1, count)} x i64] zeroinitializer, align 64"
        self.tables[name.encode()] = (f"@{name}", text)

    def text(self) -> str:
        """The whole module."""
        parts = [text for _, text in self.tables.values()]
        parts += list(self.declarations.values())
        parts += self.functions
        parts.append("attributes #0 = { nounwind uwtable(sync) }")
        return "\n".join(parts) + "\n"


_FLOAT_PREDICATES = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}
_INTEGER_PREDICATES = {"lt": "lt", "le": "le", "gt": "gt", "ge": "ge", "eq": "eq", "ne": "ne"}


class Builder:
    """Writes one function. `params` are its pointers, `integers` its integer arguments."""

    def __init__(
        self,
        module: Module,
        name: str,
        pointers: Sequence[str],
        integers: Sequence[str] = (),
        *,
        result: str = "void",
        public: bool = False,
    ) -> None:
        self.module, self.name = module, name
        self.params = {p: f"%{p}" for p in pointers}
        self.integers = {p: Value(f"%{p}", int64) for p in integers}
        args = [f"ptr noalias noundef %{p}" for p in pointers]
        args += [f"i64 noundef %{p}" for p in integers]
        linkage = "" if public else "internal "
        self._head = f"define {linkage}{result} @{name}({', '.join(args)}) #0 {{"
        self._allocas: list[str] = []
        self._lines: list[str] = []
        self._count = 0
        self._labels = 0
        self.block = "entry"
        self._splats: dict[tuple[str, int], Value] = {}
        self._known: dict[str, Value] = {}  # instructions of this block whose results stay true
        self._returns = "  ret void" if result == "void" else None

    index_dtype = int64

    # --- writing -------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """Write one line of IR."""
        self._lines.append("  " + text)

    def assign(self, text: str, dtype: DType, lanes: int = 1) -> Value:
        """Write an instruction and name its result.

        One that reads no memory is written once in a block: asked for again, it is the same value.
        """
        found = self._known.get(text)
        if found is not None:
            return found if found.dtype is dtype else Value(found.text, dtype, lanes)
        self._count += 1
        name = f"%{self._count}"
        self._lines.append(f"  {name} = {text}")
        value = Value(name, dtype, lanes)
        if not text.startswith(_IMPURE) or "@llvm." in text:
            self._known[text] = value
        return value

    def _pointer(self, text: str) -> str:
        self._count += 1
        name = f"%{self._count}"
        self._lines.append(f"  {name} = {text}")
        return name

    def label(self) -> str:
        """A new label."""
        self._labels += 1
        return f"b{self._labels}"

    def begin(self, label: str) -> None:
        """Begin a block; the block before must have ended."""
        self._lines.append(f"{label}:")
        self.block = label
        self._splats.clear()
        self._known.clear()

    def finish(self, value: Value | None = None) -> str:
        """End the function (returning `value`, if it returns one) and add it to its module.

        Names are renumbered in order of their definition, as LLVM's parser demands.
        """
        if value is not None:
            self.line(f"ret {value.type} {value.text}")
        elif self._returns is not None:
            self._lines.append(self._returns)
        text = "\n".join([self._head, "entry:", *self._allocas, *self._lines, "}"])
        self.module.functions.append(text)
        return text

    # --- constants and lanes -------------------------------------------------------------------

    def const(self, value: Any, dtype: DType, lanes: int = 1) -> Value:
        """A number, in every lane."""
        text = literal(value, dtype)
        if lanes == 1:
            return Value(text, dtype)
        return Value(f"splat ({type_of(dtype)} {text})", dtype, lanes)

    def like(self, model: Value, value: Any) -> Value:
        """A number with the dtype and lanes of a value."""
        return self.const(value, model.dtype, model.lanes)

    def splat(self, x: Value, lanes: int) -> Value:
        """A scalar repeated in every lane."""
        if x.lanes == lanes:
            return x
        if not x.text.startswith("%"):
            return Value(f"splat ({x.type} {x.text})", x.dtype, lanes)
        key = (x.text, lanes)
        if key not in self._splats:
            wide = type_of(x.dtype, lanes)
            first = self.assign(
                f"insertelement {wide} poison, {x.type} {x.text}, i64 0", x.dtype, lanes
            )
            self._splats[key] = self.assign(
                f"shufflevector {wide} {first.text}, {wide} poison, "
                f"<{lanes} x i32> zeroinitializer",
                x.dtype, lanes,
            )  # fmt: skip
        return self._splats[key]

    def match(self, *xs: Operand) -> list[Value]:
        """Operands as values of equal lanes (and numbers as constants of their dtype)."""
        model = next(x for x in xs if isinstance(x, Value))
        lanes = max(x.lanes for x in xs if isinstance(x, Value))
        return [
            self.splat(x if isinstance(x, Value) else self.const(x, model.dtype), lanes) for x in xs
        ]

    def iota(self, dtype: DType, lanes: int) -> Value:
        """0, 1, 2, ... along the lanes."""
        if lanes == 1:
            return self.const(0, dtype)
        kind = type_of(dtype)
        items = ", ".join(f"{kind} {literal(i, dtype)}" for i in range(lanes))
        return Value(f"<{items}>", dtype, lanes)

    def extract(self, x: Value, lane: int | Value) -> Value:
        """One lane of a vector."""
        if x.lanes == 1:
            return x
        at = lane if isinstance(lane, int) else lane.text
        return self.assign(f"extractelement {x.type} {x.text}, i64 {at}", x.dtype)

    def insert(self, x: Value, item: Value, lane: int) -> Value:
        """A vector with one lane replaced."""
        return self.assign(
            f"insertelement {x.type} {x.text}, {item.type} {item.text}, i64 {lane}",
            x.dtype, x.lanes,
        )  # fmt: skip

    def undefined(self, dtype: DType, lanes: int) -> Value:
        """A vector whose lanes are about to be set."""
        return Value("poison", dtype, lanes)

    def shuffle(self, x: Value, y: Value, lanes: Sequence[int]) -> Value:
        """Lanes picked from two vectors, those of `y` numbered after those of `x`."""
        items = ", ".join(f"i32 {k}" for k in lanes)
        return self.assign(
            f"shufflevector {x.type} {x.text}, {y.type} {y.text}, <{len(lanes)} x i32> <{items}>",
            x.dtype, len(lanes),
        )  # fmt: skip

    # --- arithmetic ----------------------------------------------------------------------------

    def _binary(self, x: Operand, y: Operand, floating: str, signed: str, unsigned: str) -> Value:
        a, b = self.match(x, y)
        kind = kind_of(a.dtype)
        opcode = floating if kind == "floating" else unsigned if kind == "unsigned" else signed
        return self.assign(f"{opcode} {a.type} {a.text}, {b.text}", a.dtype, a.lanes)

    def add(self, x: Operand, y: Operand) -> Value:
        """x + y."""
        return self._binary(x, y, "fadd", "add", "add")

    def sub(self, x: Operand, y: Operand) -> Value:
        """x - y."""
        return self._binary(x, y, "fsub", "sub", "sub")

    def mul(self, x: Operand, y: Operand) -> Value:
        """x * y."""
        return self._binary(x, y, "fmul", "mul", "mul")

    def div(self, x: Operand, y: Operand) -> Value:
        """x / y; of integers, rounded towards zero (y must not be 0)."""
        return self._binary(x, y, "fdiv", "sdiv", "udiv")

    def rem(self, x: Operand, y: Operand) -> Value:
        """The remainder with the sign of x; of integers, y must not be 0."""
        return self._binary(x, y, "frem", "srem", "urem")

    def neg(self, x: Value) -> Value:
        """-x."""
        if kind_of(x.dtype) == "floating":
            return self.assign(f"fneg {x.type} {x.text}", x.dtype, x.lanes)
        return self.sub(self.like(x, 0), x)

    def intrinsic(self, name: str, *xs: Operand) -> Value:
        """An LLVM intrinsic named `llvm.name.TYPE`, of operands of one type."""
        values = self.match(*xs)
        x = values[0]
        scalar = _SUFFIX[type_of(x.dtype)]
        suffix = scalar if x.lanes == 1 else f"v{x.lanes}{scalar}"
        full = f"llvm.{name}.{suffix}"
        self.module.declare(full, x.type, [x.type] * len(values))
        args = ", ".join(f"{v.type} {v.text}" for v in values)
        return self.assign(f"call {x.type} @{full}({args})", x.dtype, x.lanes)

    def fma(self, x: Operand, y: Operand, z: Operand) -> Value:
        """x * y + z with one rounding."""
        return self.intrinsic("fma", x, y, z)

    def sqrt(self, x: Value) -> Value:
        """The square root."""
        return self.intrinsic("sqrt", x)

    def floor(self, x: Value) -> Value:
        """Rounded down."""
        return self.intrinsic("floor", x)

    def ceil(self, x: Value) -> Value:
        """Rounded up."""
        return self.intrinsic("ceil", x)

    def trunc(self, x: Value) -> Value:
        """Rounded towards zero."""
        return self.intrinsic("trunc", x)

    def rint(self, x: Value) -> Value:
        """Rounded to the nearest, ties to even."""
        return self.intrinsic("roundeven", x)

    def abs(self, x: Value) -> Value:
        """The absolute value; of the smallest integer, itself."""
        kind = kind_of(x.dtype)
        if kind == "floating":
            return self.intrinsic("fabs", x)
        if kind != "signed":
            return x
        return self.select(self.cmp("lt", x, 0), self.neg(x), x)

    def copysign(self, x: Operand, y: Operand) -> Value:
        """x with the sign of y."""
        return self.intrinsic("copysign", x, y)

    def larger(self, x: Operand, y: Operand) -> Value:
        """x where x > y, else y: one instruction; not symmetric in NaN (y wins)."""
        a, b = self.match(x, y)
        return self.select(self.cmp("gt", a, b), a, b)

    def smaller(self, x: Operand, y: Operand) -> Value:
        """x where x < y, else y: one instruction; not symmetric in NaN (y wins)."""
        a, b = self.match(x, y)
        return self.select(self.cmp("lt", a, b), a, b)

    # --- comparison, choice and bits -----------------------------------------------------------

    def cmp(self, predicate: str, x: Operand, y: Operand) -> Value:
        """A comparison ("lt", "le", "gt", "ge", "eq", "ne") with IEEE 754's meaning for NaN."""
        a, b = self.match(x, y)
        kind = kind_of(a.dtype)
        if kind == "floating":
            opcode = f"fcmp {_FLOAT_PREDICATES[predicate]}"
        else:
            word = _INTEGER_PREDICATES[predicate]
            sign = "" if word in ("eq", "ne") else "s" if kind == "signed" else "u"
            opcode = f"icmp {sign}{word}"
        return self.assign(f"{opcode} {a.type} {a.text}, {b.text}", bool_, a.lanes)

    def isnan(self, x: Value) -> Value:
        """Whether x is NaN."""
        return self.assign(f"fcmp uno {x.type} {x.text}, {x.text}", bool_, x.lanes)

    def select(self, test: Value, x: Operand, y: Operand) -> Value:
        """x where the test is true, y elsewhere."""
        a, b = self.match(x, y)
        lanes = max(test.lanes, a.lanes)
        a, b = self.splat(a, lanes), self.splat(b, lanes)
        t = test if test.lanes == 1 else self.splat(test, lanes)
        return self.assign(
            f"select {t.type} {t.text}, {a.type} {a.text}, {b.type} {b.text}", a.dtype, lanes
        )

    def and_(self, x: Operand, y: Operand) -> Value:
        """Bitwise and, of integers or bools."""
        return self._binary(x, y, "and", "and", "and")

    def or_(self, x: Operand, y: Operand) -> Value:
        """Bitwise or, of integers or bools."""
        return self._binary(x, y, "or", "or", "or")

    def xor(self, x: Operand, y: Operand) -> Value:
        """Bitwise exclusive or, of integers or bools."""
        return self._binary(x, y, "xor", "xor", "xor")

    def not_(self, x: Value) -> Value:
        """Bitwise complement, of integers or bools."""
        return self.xor(x, self.like(x, True if x.dtype == bool_ else -1))

    def shl(self, x: Operand, y: Operand) -> Value:
        """Bits shifted to the left; by the width or more is undefined."""
        return self._binary(x, y, "shl", "shl", "shl")

    def shr(self, x: Operand, y: Operand) -> Value:
        """Bits shifted to the right, with the sign for signed integers."""
        return self._binary(x, y, "ashr", "ashr", "lshr")

    def bitcast(self, x: Value, dtype: DType) -> Value:
        """The same bits read as another dtype of the same size."""
        if type_of(dtype) == type_of(x.dtype):
            return Value(x.text, dtype, x.lanes)
        return self.assign(
            f"bitcast {x.type} {x.text} to {type_of(dtype, x.lanes)}", dtype, x.lanes
        )

    # --- conversion ----------------------------------------------------------------------------

    def convert(self, x: Value, dtype: DType) -> Value:
        """The number as another dtype: towards zero to integers, to the nearest between floats.

        To a half-precision dtype it is rounded and stays a float32 value.
        """
        if dtype in _HALF:
            return self._round_half(self.convert(x, float32), dtype)
        if dtype == x.dtype:
            return x
        if dtype == bool_:
            return self.cmp("ne", x, self.like(x, 0))
        source, target = kind_of(x.dtype), kind_of(dtype)
        wide = type_of(dtype, x.lanes)
        if source == "bool":
            opcode = "uitofp" if target == "floating" else "zext"
        elif source == "floating":
            if target == "floating":
                opcode = "fpext" if dtype.itemsize > x.dtype.itemsize else "fptrunc"
            else:
                opcode = "fptosi" if target == "signed" else "fptoui"
        elif target == "floating":
            opcode = "sitofp" if source == "signed" else "uitofp"
        elif dtype.itemsize == x.dtype.itemsize:
            return Value(x.text, dtype, x.lanes)
        elif dtype.itemsize < x.dtype.itemsize:
            opcode = "trunc"
        else:
            opcode = "sext" if source == "signed" else "zext"
        return self.assign(f"{opcode} {x.type} {x.text} to {wide}", dtype, x.lanes)

    def _round_half(self, x: Value, dtype: DType) -> Value:
        """A float32 value rounded to a half-precision one, still as float32."""
        if dtype == float16:
            half = "half" if x.lanes == 1 else f"<{x.lanes} x half>"
            low = self._pointer(f"fptrunc {x.type} {x.text} to {half}")
            return self.assign(f"fpext {half} {low} to {x.type}", float32, x.lanes)
        wide = self.shl(self._bfloat_bits(x), 16)
        return self.bitcast(wide, float32)

    def _bfloat_bits(self, x: Value) -> Value:
        """The upper 16 bits of a float32 value rounded to bfloat16, as an int32."""
        uint32 = np.dtype("uint32")
        bits = self.bitcast(x, uint32)
        odd = self.and_(self.shr(bits, 16), 1)
        rounded = self.shr(self.add(self.add(bits, 0x7FFF), odd), 16)
        quiet = self.or_(self.shr(bits, 16), 0x40)
        return self.select(self.isnan(x), quiet, rounded)

    # --- memory --------------------------------------------------------------------------------

    def offset(self, pointer: str, index: Index, size: int = 1) -> str:
        """A pointer moved by `index` elements of `size` bytes."""
        if isinstance(index, int):
            if index == 0:
                return pointer
            return self._pointer(f"getelementptr i8, ptr {pointer}, i64 {index * size}")
        if size in (1, 2, 4, 8):
            return self._pointer(f"getelementptr i{size * 8}, ptr {pointer}, i64 {index.text}")
        return self._pointer(f"getelementptr [{size} x i8], ptr {pointer}, i64 {index.text}")

    def load(
        self,
        pointer: str,
        dtype: DType,
        lanes: int = 1,
        *,
        mask: Value | None = None,
        align: int | None = None,
    ) -> Value:
        """Read consecutive elements; lanes outside `mask` read 0 and touch no memory."""
        kind = memory_type(dtype, lanes)
        aligned = align or dtype.itemsize
        if mask is None:
            name = self._pointer(f"load {kind}, ptr {pointer}, align {aligned}")
        else:
            suffix = f"v{lanes}{_memory_suffix(dtype)}"
            full = f"llvm.masked.load.{suffix}.p0"
            self.module.declare(full, kind, ["ptr", "i32", f"<{lanes} x i1>", kind])
            name = self._pointer(
                f"call {kind} @{full}(ptr {pointer}, i32 {aligned}, {mask.type} {mask.text}, "
                f"{kind} zeroinitializer)"
            )
        return self._widen(name, kind, dtype, lanes)

    def _widen(self, name: str, kind: str, dtype: DType, lanes: int) -> Value:
        """What was read, as a value in a register."""
        if dtype == bool_:
            zero = "0" if lanes == 1 else "zeroinitializer"
            return self.assign(f"icmp ne {kind} {name}, {zero}", bool_, lanes)
        if dtype == float16:
            return self.assign(f"fpext {kind} {name} to {type_of(float32, lanes)}", float32, lanes)
        if dtype == bfloat16:
            wide = self.assign(f"zext {kind} {name} to {type_of(int32, lanes)}", int32, lanes)
            return self.bitcast(self.shl(wide, 16), float32)
        return Value(name, dtype, lanes)

    def store(
        self,
        x: Value,
        pointer: str,
        dtype: DType | None = None,
        *,
        mask: Value | None = None,
        align: int | None = None,
    ) -> None:
        """Write a value, as `dtype` (its own unless it is rounded to half), to memory."""
        dtype = dtype or x.dtype
        lanes = x.lanes
        kind = memory_type(dtype, lanes)
        text = x.text
        if dtype == bool_:
            text = self._pointer(f"zext {x.type} {x.text} to {kind}")
        elif dtype == float16:
            text = self._pointer(f"fptrunc {x.type} {x.text} to {kind}")
        elif dtype == bfloat16:
            bits = self._bfloat_bits(x)
            text = self._pointer(f"trunc {bits.type} {bits.text} to {kind}")
        aligned = align or dtype.itemsize
        if mask is None:
            self.line(f"store {kind} {text}, ptr {pointer}, align {aligned}")
            return
        if mask.text.startswith("<") and lanes * dtype.itemsize <= 32:
            self._store_first(text, kind, pointer, dtype, lanes, mask.text.count("true"))
            return
        full = f"llvm.masked.store.v{lanes}{_memory_suffix(dtype)}.p0"
        self.module.declare(full, "void", [kind, "ptr", "i32", f"<{lanes} x i1>"])
        self.line(
            f"call void @{full}({kind} {text}, ptr {pointer}, i32 {aligned}, "
            f"{mask.type} {mask.text})"
        )

    def _store_first(
        self, text: str, kind: str, pointer: str, dtype: DType, lanes: int, count: int
    ) -> None:
        """Write a known number of lanes in halves, quarters...: masked stores are slow on AMD's."""
        at = 0
        while at < count:
            size = 1 << (count - at).bit_length() - 1
            place = self.offset(pointer, at, dtype.itemsize)
            items = ", ".join(f"i32 {k}" for k in range(at, at + size))
            part, small = text, kind
            if size < lanes:
                small = f"<{size} x {memory_type(dtype)}>"
                picked = f"shufflevector {kind} {text}, {kind} poison, <{size} x i32> <{items}>"
                part = self._pointer(picked)
            self.line(f"store {small} {part}, ptr {place}, align {dtype.itemsize}")
            at += size

    def mask(self, count: Index, lanes: int) -> Value:
        """True in the first `count` lanes."""
        if isinstance(count, int):
            items = ", ".join("i1 true" if i < count else "i1 false" for i in range(lanes))
            return Value(f"<{items}>", bool_, lanes)
        short = self.assign(f"trunc i64 {count.text} to i32", int32)
        return self.cmp("lt", self.iota(int32, lanes), self.splat(short, lanes))

    # --- variables -----------------------------------------------------------------------------

    def variable(self, dtype: DType, lanes: int = 1, initial: Value | None = None) -> Variable:
        """A changing value, set to `initial` here."""
        name = f"%s{len(self._allocas)}"
        self._allocas.append(f"  {name} = alloca {type_of(dtype, lanes)}")
        made = Variable(name, dtype, lanes)
        if initial is not None:
            self.set(made, initial)
        return made

    def array(self, size: int, kind: str) -> str:
        """Room on the stack for `size` elements of a memory type; its pointer."""
        name = f"%s{len(self._allocas)}"
        self._allocas.append(f"  {name} = alloca [{size} x {kind}], align 64")
        return name

    def get(self, variable: Variable) -> Value:
        """The present value of a variable."""
        kind = type_of(variable.dtype, variable.lanes)
        return self.assign(f"load {kind}, ptr {variable.pointer}", variable.dtype, variable.lanes)

    def set(self, variable: Variable, value: Value) -> None:
        """Change a variable."""
        x = self.splat(value, variable.lanes)
        self.line(f"store {x.type} {x.text}, ptr {variable.pointer}")

    def stack(self, size: int, align: int = 64) -> str:
        """A pointer to bytes of the function's own, free again when it returns."""
        name = f"%s{len(self._allocas)}"
        self._allocas.append(f"  {name} = alloca [{size} x i8], align {align}")
        return name

    # --- indices -------------------------------------------------------------------------------
    # 64-bit integers of which the known parts are Python's.

    def index(self, i: Index) -> Value:
        """An index as a value."""
        return i if isinstance(i, Value) else Value(str(i), int64)

    def iadd(self, i: Index, j: Index) -> Index:
        """i + j."""
        if isinstance(i, int) and isinstance(j, int):
            return i + j
        if i == 0 and isinstance(i, int):
            return j
        if j == 0 and isinstance(j, int):
            return i
        a, c = self.index(i), self.index(j)
        return self.assign(f"add nsw i64 {a.text}, {c.text}", int64)

    def isub(self, i: Index, j: Index) -> Index:
        """i - j."""
        if isinstance(j, int):
            return self.iadd(i, -j)
        a = self.index(i)
        return self.assign(f"sub nsw i64 {a.text}, {j.text}", int64)

    def imul(self, i: Index, j: Index) -> Index:
        """i * j."""
        if isinstance(i, int) and isinstance(j, int):
            return i * j
        if (isinstance(i, int) and i == 0) or (isinstance(j, int) and j == 0):
            return 0
        if isinstance(i, int) and i == 1:
            return j
        if isinstance(j, int) and j == 1:
            return i
        a, c = self.index(i), self.index(j)
        return self.assign(f"mul nsw i64 {a.text}, {c.text}", int64)

    def idiv(self, i: Index, j: int) -> Index:
        """i // j, of indices that are not negative."""
        if isinstance(i, int):
            return i // j
        return i if j == 1 else self.assign(f"udiv i64 {i.text}, {j}", int64)

    def imod(self, i: Index, j: int) -> Index:
        """i % j, of indices that are not negative."""
        if isinstance(i, int):
            return i % j
        return 0 if j == 1 else self.assign(f"urem i64 {i.text}, {j}", int64)

    def imin(self, i: Index, j: Index) -> Index:
        """The smaller index."""
        if isinstance(i, int) and isinstance(j, int):
            return min(i, j)
        return self.intrinsic("smin", self.index(i), self.index(j))

    # --- control -------------------------------------------------------------------------------

    @contextmanager
    def loop(self, start: Index, stop: Index, step: int = 1) -> Generator[Value]:
        """A counting loop; the body may be left out when `start >= stop`."""
        head, body, end = self.label(), self.label(), self.label()
        before = self.block
        first, last = self.index(start), self.index(stop)
        self._labels += 1
        i, following = f"%i{self._labels}", f"%n{self._labels}"
        known = isinstance(start, int) and isinstance(stop, int) and start < stop
        if not known:
            test = self.assign(f"icmp slt i64 {first.text}, {last.text}", bool_)
            self.line(f"br i1 {test.text}, label %{body}, label %{end}")
        else:
            self.line(f"br label %{body}")
        self.begin(body)
        # The latch's label is known now, so the phi can name it before it exists.
        self.line(f"{i} = phi i64 [ {first.text}, %{before} ], [ {following}, %{head} ]")
        yield Value(i, int64)
        self.line(f"br label %{head}")
        self.begin(head)
        wraps = "nuw nsw" if isinstance(start, int) and start >= 0 else "nsw"
        self.line(f"{following} = add {wraps} i64 {i}, {step}")
        test = self.assign(f"icmp slt i64 {following}, {last.text}", bool_)
        self.line(f"br i1 {test.text}, label %{body}, label %{end}")
        self.begin(end)

    @contextmanager
    def when(self, test: Value) -> Generator[None]:
        """A block that is run if a bool is true."""
        inside, end = self.label(), self.label()
        self.line(f"br i1 {test.text}, label %{inside}, label %{end}")
        self.begin(inside)
        yield
        self.line(f"br label %{end}")
        self.begin(end)

    @contextmanager
    def repeat(self) -> Generator[str]:
        """An endless loop; `leave(test, label)` with the label given ends it."""
        head, end = self.label(), self.label()
        self.line(f"br label %{head}")
        self.begin(head)
        yield end
        self.line(f"br label %{head}")
        self.begin(end)

    def leave(self, test: Value, label: str) -> None:
        """Go to a label if a bool is true."""
        go_on = self.label()
        self.line(f"br i1 {test.text}, label %{label}, label %{go_on}")
        self.begin(go_on)

    def choose_pointer(self, test: Value, x: str, y: str) -> str:
        """One of two pointers."""
        return self._pointer(f"select i1 {test.text}, ptr {x}, ptr {y}")

    def load_pointer(self, pointer: str) -> str:
        """Read a pointer."""
        return self._pointer(f"load ptr, ptr {pointer}, align 8")

    def store_pointer(self, x: str, pointer: str) -> None:
        """Write a pointer."""
        self.line(f"store ptr {x}, ptr {pointer}, align 8")

    def load_index(self, pointer: str) -> Value:
        """Read a 64-bit integer."""
        return self.assign(f"load i64, ptr {pointer}, align 8", int64)

    def copy_bytes(self, target: str, source: str, size: int) -> None:
        """Copy memory that does not overlap."""
        name = "llvm.memcpy.p0.p0.i64"
        self.module.declare(name, "void", ["ptr", "ptr", "i64", "i1"])
        self.line(f"call void @{name}(ptr {target}, ptr {source}, i64 {size}, i1 false)")

    def clock(self, arch: str) -> Value:
        """The processor's counter of ticks."""
        name = clock_of(arch)
        self.module.declare(name, "i64", [])
        return Value(self._pointer(f"call i64 @{name}()"), int64)

    def call_pointer(self, function: str, number: int, pointer: str) -> Value:
        """Call a function by its address: an integer and a pointer to an integer."""
        return self.assign(f"call i64 {function}(i64 {number}, ptr {pointer})", int64)

    def give_back(self, value: Value) -> None:
        """Return from the middle of the function."""
        self.line(f"ret {value.type} {value.text}")
        self.begin(self.label())

    def call(self, name: str, args: Sequence[str | Index], result: DType | None = None) -> Value:
        """Call a function of this module: pointers (their names), then integers."""
        parts = [f"ptr {a}" if isinstance(a, str) else f"i64 {self.index(a).text}" for a in args]
        if result is None:
            self.line(f"call void @{name}({', '.join(parts)})")
            return Value("undef", int64)
        return self.assign(f"call {type_of(result)} @{name}({', '.join(parts)})", result)

    def external(self, name: str, *xs: Value) -> Value:
        """A C function of scalars of one dtype (such as `lgamma`), applied to every lane."""
        scalar = type_of(xs[0].dtype)
        self.module.declare(name, scalar, [scalar] * len(xs))
        lanes = xs[0].lanes
        found: Value | None = None
        for lane in range(lanes):
            items = [self.extract(x, lane) for x in xs]
            args = ", ".join(f"{v.type} {v.text}" for v in items)
            y = self.assign(f"call {scalar} @{name}({args})", xs[0].dtype)
            if lanes == 1:
                return y
            found = self.insert(found or self.undefined(y.dtype, lanes), y, lane)
        assert found is not None
        return found


def _memory_suffix(dtype: DType) -> str:
    kind = memory_type(dtype)
    return "f16" if kind == "half" else _SUFFIX[kind]


def bool_value(b: Builder, pointer: str) -> Value:
    """A bool read from memory."""
    return b.load(pointer, bool_)
