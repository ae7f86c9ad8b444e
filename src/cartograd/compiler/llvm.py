"""LLVM through llvmlite: the processor, IR text to object code, object code to addresses.

The only file that knows llvmlite, which it imports when it is first used. Text is parsed,
verified, optimised, turned into object code and linked into the process:

>>> text = "define i64 @answer(i64 %x) alwaysinline {\\n  %y = add i64 %x, 2\\n  ret i64 %y\\n}"
>>> code = load(compile_text(text), ["answer"])
>>> import ctypes
>>> ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(code.address("answer"))(40)
42

What compiling costs (llvmlite 0.50, LLVM 22 with its assertions on, Zen 3 at 3.4 GHz): 1.3 ms for
an empty module; 0.4 ms for every function that remains, however small, and 1 ms for one with a
loop, most of which is LLVM's own walking from pass to pass; then about 20 us an instruction, of
which instruction selection is half. Passes at level 1 are a fifth of it. So the way to compile
fast is few functions and few instructions: a kernel that is called in one place is better marked
`alwaysinline`, which takes a tenth off the compilation of a small network's step. Linking costs
0.3 to 0.5 ms. LLVM 20, in llvmlite 0.45 to 0.47, is a quarter slower.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..errors import CompileError, UsageError

__all__ = [
    "Cpu",
    "NativeCode",
    "assembly",
    "compile_text",
    "host_cpu",
    "load",
    "optimised",
    "prepare",
    "toolchain",
]

# The IR that Cartograd writes is already vectors, with its loops in the right order. What is left
# is to inline what is marked so, to turn stack slots into registers and to tidy up; LLVM's code
# generator hoists constants by itself. Without combining instructions a GPT's step would compile in
# a sixth less time and run as fast, but LLVM then turns the merge of a sort into a loop that does
# not end. Level 2 is LLVM's own pipeline at -O2 without its vectorisers: three times as long to
# compile, and nothing measured so far runs faster for it.
_CHEAP = ("always_inliner", "global_dead_code_eliminate", "sroa", "instruction_combine",
          "simplify_cfg")  # fmt: skip
_LEVELS = (1, 2)

# What CARTOGRAD_CPU may name in place of the processor that is found: bytes in a vector, has FMA.
_X86_LEVELS = {
    "x86-64": (16, False),
    "x86-64-v2": (16, False),
    "x86-64-v3": (32, True),
    "x86-64-v4": (64, True),
}

# A JIT frees the code of a library that is dropped, but not the library's own bookkeeping, about
# 10 kB. A JIT of its own for every program would cost 0.9 ms, so each serves this many.
_LIBRARIES_PER_JIT = 64


@dataclass(frozen=True, slots=True)
class Cpu:
    """A processor to compile for: LLVM's names for it, and what decides the shape of kernels.

    `features` is LLVM's list ("+avx2,-avx512f,..."), `vector_bytes` the width of its registers
    (16, 32 or 64), `arch` "x86_64" or "aarch64" (or what else LLVM calls it).

    >>> host_cpu().vector_bytes in (16, 32, 64)
    True
    """

    name: str
    features: str
    triple: str
    arch: str
    vector_bytes: int
    has_fma: bool


def host_cpu() -> Cpu:
    """The processor this runs on, or the one that the variable CARTOGRAD_CPU names.

    On x86-64 the variable may be x86-64, x86-64-v2, x86-64-v3 (AVX2 and FMA) or x86-64-v4
    (AVX-512); elsewhere "generic". UsageError for any other value.

    >>> host_cpu().arch in ("x86_64", "aarch64")
    True
    """
    return _cpu(os.environ.get("CARTOGRAD_CPU", ""))


@cache
def _cpu(override: str) -> Cpu:
    binding = _binding()
    triple: str = binding.get_process_triple()
    arch: str = {"arm64": "aarch64"}.get(triple.split("-")[0], triple.split("-")[0])
    if override:
        known = _X86_LEVELS if arch == "x86_64" else {"generic": (16, True)}
        if override not in known:
            raise UsageError(
                f"CARTOGRAD_CPU={override!r} names no processor: choose from {', '.join(known)}"
            )
        vector_bytes, has_fma = known[override]
        return Cpu(override, _tuned(arch, ""), triple, arch, vector_bytes, has_fma)
    found: dict[str, bool] = dict(binding.get_host_cpu_features())
    features = ",".join(("+" if found[name] else "-") + name for name in sorted(found))
    vector_bytes = 64 if found.get("avx512f") else 32 if found.get("avx2") else 16
    has_fma = arch == "aarch64" or bool(found.get("fma"))
    name: str = binding.get_host_cpu_name()
    return Cpu(name, _tuned(arch, features), triple, arch, vector_bytes, has_fma)


def _tuned(arch: str, features: str) -> str:
    """The features, told not to halve 512-bit vectors as some processors' defaults would."""
    if arch != "x86_64":
        return features
    kept = [name for name in features.split(",") if name and name[1:] != "prefer-256-bit"]
    return ",".join([*kept, "-prefer-256-bit"])


@cache
def toolchain() -> str:
    """The versions that object code depends on, for the keys of a cache.

    >>> toolchain().startswith("llvmlite ")
    True
    """
    import llvmlite  # pyright: ignore[reportMissingTypeStubs]

    version: str = ".".join(str(part) for part in _binding().llvm_version_info)
    return f"llvmlite {llvmlite.__version__} LLVM {version}"


@cache
def _binding() -> Any:
    """llvmlite's binding, its native target ready. Imported late: it takes 50 ms to load."""
    import llvmlite.binding  # pyright: ignore[reportMissingTypeStubs]

    binding: Any = llvmlite.binding
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding


class _Target:
    """What compiling for one processor at one level needs and can keep from call to call."""

    def __init__(self, cpu: Cpu, level: int) -> None:
        self.machine = _machine(cpu)
        self.layout = str(self.machine.target_data)
        self.level = level
        self.passes = _cheap_passes() if level == 1 else None

    def optimise(self, text: str) -> Any:
        """The module that a text says, verified and optimised."""
        binding = _binding()
        context = binding.create_context()  # its own: types and constants die with the module
        try:
            module = binding.parse_assembly(text, context)
            module.triple = self.machine.triple
            module.data_layout = self.layout
            module.verify()
        except RuntimeError as error:
            raise CompileError(f"LLVM does not take this text: {_reason(error)}") from None
        self._run_passes(module)
        return module

    def _run_passes(self, module: Any) -> None:
        """Run the level's passes. Builders are made anew: one that served gets slower each time."""
        binding = _binding()
        options = binding.create_pipeline_tuning_options(speed_level=0 if self.level == 1 else 2)
        options.loop_vectorization = options.slp_vectorization = False
        builder = binding.create_pass_builder(self.machine, options)
        passes = builder.getModulePassManager() if self.passes is None else self.passes
        passes.run(module, builder)


def _cheap_passes() -> Any:
    """Level 1's passes, for any number of modules: llvmlite never frees 9 kB of each such list."""
    passes = _binding().create_new_module_pass_manager()
    for name in _CHEAP:
        getattr(passes, f"add_{name}_pass")()
    return passes


def _machine(cpu: Cpu) -> Any:
    """A target machine. Position-independent small code: constants are read beside the code."""
    binding = _binding()
    return binding.Target.from_triple(cpu.triple).create_target_machine(
        cpu=cpu.name, features=cpu.features, opt=2, reloc="pic", codemodel="small", jit=True
    )


@cache
def _target(cpu: Cpu, level: int) -> _Target:
    if level not in _LEVELS:
        raise UsageError(f"level={level!r}: the levels of optimisation are 1 and 2")
    return _Target(cpu, level)


# A target machine serves one call at a time; llvmlite's own lock covers single steps only.
_lock = threading.RLock()
# A child forked while another thread compiles must not inherit a lock that nobody will release.
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)


@contextmanager
def _loops_as_written() -> Generator[None]:
    """Leave out LLVM's loop strength reduction: more than half of the time to make the code of a
    matrix product, for address arithmetic that hides behind the multiplications anyway.

    The option is the process's, so it is put back for others who use llvmlite.
    """
    binding = _binding()
    binding.set_option("", "-disable-lsr=true")
    try:
        yield
    finally:
        binding.set_option("", "-disable-lsr=false")


def _reason(error: RuntimeError) -> str:
    """LLVM's message without llvmlite's heading and without blank lines."""
    lines = [line.rstrip() for line in str(error).splitlines()]
    return "\n".join(line for line in lines if line and line != "LLVM IR parsing error")


def prepare() -> None:
    """Load LLVM and make the target ready, which takes 40 ms, before the first text comes.

    >>> prepare()
    """
    with _lock:
        _target(host_cpu(), 1)


def compile_text(text: str, *, level: int = 1, cpu: Cpu | None = None) -> bytes:
    """Object code of a module of LLVM IR, for this processor unless another is given.

    Level 1 inlines functions marked `alwaysinline`, promotes stack slots to registers and tidies;
    level 2 runs all of LLVM's optimisations save its vectorisers. CompileError, with LLVM's
    message, for a text that is not a valid module.

    >>> compile_text("define void @f() {\\n  ret vood\\n}")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    cartograd.errors.CompileError: LLVM does not take this text: ...expected type...
    """
    with _lock, _loops_as_written():
        target = _target(cpu or host_cpu(), level)
        return target.machine.emit_object(target.optimise(text))


def optimised(text: str, *, level: int = 1, cpu: Cpu | None = None) -> str:
    """The module after its optimisation, as text.

    >>> print(optimised("define i64 @f() {\\n  %x = add i64 40, 2\\n  ret i64 %x\\n}"))
    ... # doctest: +ELLIPSIS
    ; ModuleID...
      ret i64 42...
    """
    with _lock:
        return str(_target(cpu or host_cpu(), level).optimise(text))


def assembly(text: str, *, level: int = 1, cpu: Cpu | None = None) -> str:
    """The module's machine code, as assembly text.

    >>> "ret" in assembly("define void @f() {\\n  ret void\\n}")
    True
    """
    with _lock, _loops_as_written():
        target = _target(cpu or host_cpu(), level)
        return target.machine.emit_assembly(target.optimise(text))


class _Jit:
    """One of LLVM's JITs and how many libraries it has been given."""

    def __init__(self) -> None:
        # JITLink places a program's sections side by side, as small code needs.
        self.engine = _binding().create_lljit_compiler(_machine(host_cpu()), use_jit_link=True)
        self.count = 0


_current: list[_Jit] = []


def _jit_with_room() -> _Jit:
    if not _current or _current[0].count >= _LIBRARIES_PER_JIT:
        _current[:] = [_Jit()]  # the old one lives as long as the programs in it
    _current[0].count += 1
    return _current[0]


class NativeCode:
    """Machine code in this process. It is unmapped when the object is dropped.

    Whoever holds an address must hold this object: nothing else keeps the code alive.
    """

    __slots__ = ("_addresses", "_jit", "_library")

    def __init__(self, addresses: dict[str, int], library: Any, jit: _Jit) -> None:
        self._addresses = addresses
        self._library = library
        self._jit = jit  # freed after the library: a JIT must outlive what it holds

    def address(self, name: str) -> int:
        """Where a function that was asked for at loading begins; UsageError for another name."""
        try:
            return self._addresses[name]
        except KeyError:
            known = ", ".join(self._addresses)
            raise UsageError(f"no address of {name!r} was asked for at loading: {known}") from None

    def __del__(self) -> None:
        library, self._library = getattr(self, "_library", None), None
        if library is not None and not sys.is_finalizing():  # at exit LLVM may be gone before
            library.close()


def load(
    object_code: bytes,
    names: Sequence[str] = ("cartograd_main",),
    symbols: Mapping[str, int] | None = None,
) -> NativeCode:
    """Link object code into this process and find the addresses of `names`.

    What the code calls is looked for in `symbols` (name -> address), then among the functions of
    the process: the C library, its mathematics, threads. CompileError when one is missing; LLVM
    names it on the standard error stream, and nowhere else.

    >>> load(compile_text("define i32 @f() {\\n  ret i32 1\\n}"), ["f"]).address("f") > 0
    True
    """
    builder = _binding().JITLibraryBuilder().add_object_img(object_code)
    builder.add_current_process()
    for name, address in (symbols or {}).items():
        builder.import_symbol(name, address)
    for name in names:
        builder.export_symbol(name)
    with _lock:
        jit = _jit_with_room()
        try:
            library = builder.link(jit.engine, f"program{jit.count}")
        except RuntimeError as error:
            raise CompileError(
                f"the code cannot be linked, for what LLVM says on stderr: {_reason(error)}"
            ) from None
    return NativeCode({name: library[name] for name in names}, library, jit)
