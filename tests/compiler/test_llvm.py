"""LLVM behind one face: what is compiled runs, what is wrong is said, what is dropped is freed."""

import ctypes
import gc
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cartograd.compiler.llvm import Cpu, assembly, compile_text, host_cpu, load, optimised
from cartograd.errors import CompileError, UsageError

SCALE = """
define internal float @scaled(float %x) alwaysinline {
  %y = fmul float %x, 3.0
  ret float %y
}

define void @scale(ptr noalias %p, i64 %n) {
entry:
  %slot = alloca float
  br label %loop

loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %at = getelementptr float, ptr %p, i64 %i
  %x = load float, ptr %at
  %y = call float @scaled(float %x)
  store float %y, ptr %slot
  %z = load float, ptr %slot
  store float %z, ptr %at
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done

done:
  ret void
}
"""
# Fused if and only if the processor has the instruction.
WIDE = """
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)

define void @wide(ptr %p) {
  %x = load <16 x float>, ptr %p, align 4
  %y = call <16 x float> @llvm.fma.v16f32(<16 x float> %x, <16 x float> %x, <16 x float> %x)
  store <16 x float> %y, ptr %p, align 4
  ret void
}
"""


def x86(name: str) -> Cpu:
    triple = "x86_64-unknown-linux-gnu"
    return Cpu(name, "-prefer-256-bit", triple, "x86_64", 16, False)


@pytest.mark.parametrize("level", [1, 2])
def test_compiled_text_runs(level: int) -> None:
    code = load(compile_text(SCALE, level=level), ["scale"])
    numbers = (ctypes.c_float * 5)(1, 2, 3, 4, 5)
    signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
    signature(code.address("scale"))(ctypes.addressof(numbers), 5)
    assert list(numbers) == [3, 6, 9, 12, 15]


@pytest.mark.parametrize("level", [1, 2])
def test_marked_functions_are_inlined_and_stack_slots_become_registers(level: int) -> None:
    text = optimised(SCALE, level=level)
    assert "alloca" not in text and "call float" not in text and "@scaled" not in text


def test_the_c_library_of_the_process_is_there() -> None:
    text = """
    declare double @exp(double)
    define double @f(double %x) {
      %y = call double @exp(double %x)
      ret double %y
    }"""
    code = load(compile_text(text), ["f"])
    found = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(code.address("f"))(1.5)
    assert found == pytest.approx(math.exp(1.5), rel=1e-15)


def test_given_symbols_are_linked() -> None:
    signature = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
    callback = signature(lambda x: x * x)
    text = """
    declare i64 @squared(i64)
    define i64 @f(i64 %x) {
      %y = call i64 @squared(i64 %x)
      %z = add i64 %y, 1
      ret i64 %z
    }"""
    address = ctypes.cast(callback, ctypes.c_void_p).value or 0
    code = load(compile_text(text), ["f"], {"squared": address})
    assert signature(code.address("f"))(12) == 145


def test_constants_are_read_from_beside_the_code() -> None:
    text = """
    define double @f(i64 %i) {
      %p = getelementptr [3 x double], ptr @table, i64 0, i64 %i
      %x = load double, ptr %p
      %y = fadd double %x, 0.3
      ret double %y
    }
    @table = internal constant [3 x double] [double 1.0, double 2.0, double 4.0]"""
    code = load(compile_text(text), ["f"])
    f = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int64)(code.address("f"))
    assert [f(i) for i in range(3)] == [1.3, 2.3, 4.3]


def test_text_that_is_no_ir_is_refused_with_the_place() -> None:
    with pytest.raises(CompileError, match=r"(?s)does not take this text.*2:.*expected"):
        compile_text("define void @f() {\n  ret nonsense\n}")


def test_text_that_breaks_the_rules_is_refused() -> None:
    text = """
    define i64 @f(i1 %c) {
    entry:
      br i1 %c, label %left, label %right
    left:
      %x = add i64 1, 2
      br label %right
    right:
      ret i64 %x
    }"""
    with pytest.raises(CompileError, match="does not dominate"):
        compile_text(text)


def test_a_symbol_that_nobody_has_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    text = "declare void @nowhere()\ndefine void @f() {\n  call void @nowhere()\n  ret void\n}"
    with pytest.raises(CompileError, match="cannot be linked"):
        load(compile_text(text), ["f"])
    assert "nowhere" in capfd.readouterr().err


def test_a_name_that_the_text_lacks_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    code = compile_text("define void @f() {\n  ret void\n}")
    with pytest.raises(CompileError, match="cannot be linked"):
        load(code, ["g"])
    capfd.readouterr()
    with pytest.raises(UsageError, match=r"'g'.*: f"):
        load(code, ["f"]).address("g")


def test_the_same_text_gives_the_same_bytes() -> None:
    assert compile_text(SCALE) == compile_text(SCALE)


def test_levels_are_one_and_two() -> None:
    with pytest.raises(UsageError, match="level=3"):
        compile_text(SCALE, level=3)


@pytest.mark.parametrize(
    ("name", "registers", "fused"),
    [("x86-64", "xmm", False), ("x86-64-v3", "ymm", True), ("x86-64-v4", "zmm", True)],
)
def test_vectors_fill_the_registers_of_the_processor(
    name: str, registers: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = assembly(WIDE, cpu=x86(name))
    assert set(re.findall(r"[xyz]mm(?=\d)", text)) == {registers}
    assert ("vfmadd" in text) is fused
    if host_cpu().arch == "x86_64":
        monkeypatch.setenv("CARTOGRAD_CPU", name)
        assert host_cpu().has_fma is fused
        assert host_cpu().vector_bytes == {"xmm": 16, "ymm": 32, "zmm": 64}[registers]


def test_a_processor_of_no_known_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARTOGRAD_CPU", "abacus")
    with pytest.raises(UsageError, match=r"'abacus'.*choose from"):
        host_cpu()


def test_code_outlives_the_programs_loaded_before_and_after_it() -> None:
    def program(i: int) -> bytes:
        return compile_text(f"define i64 @f() {{\n  ret i64 {i}\n}}")

    kept = {}
    for i in range(150):
        code = load(program(i), ["f"])
        if i % 7 == 0:
            kept[i] = code
    del code
    gc.collect()
    for i, code in kept.items():
        assert ctypes.CFUNCTYPE(ctypes.c_int64)(code.address("f"))() == i


def test_dropped_programs_are_freed() -> None:
    # In a process of its own: the figure is the whole process's memory.
    script = r"""
import sys
from pathlib import Path
from cartograd.compiler.llvm import compile_text, load

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def program(i):
    body = "\n".join(f"  %x{k} = mul i64 %x{k - 1}, {i + 3}" for k in range(1, 20))
    return load(compile_text(f"@big = global [20000 x i64] [{', '.join(['i64 7'] * 20000)}]\n"
        f"define i64 @f(i64 %x0) {{\n{body}\n  ret i64 %x19\n}}"), ["f"])

for i in range(70):
    program(i)
before = resident()
for i in range(300):
    program(i)
print(resident() - before)
"""
    if not Path("/proc/self/statm").exists():
        script = script.replace("print(resident() - before)", "print(0)")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert int(done.stdout) < 10_000_000  # 300 programs of 160 kB would be 48 MB


def test_a_child_forked_while_another_thread_compiles_can_compile() -> None:
    script = r"""
import os, threading
from cartograd.compiler.llvm import compile_text
text = "\n".join(f"define i64 @f{i}() {{\n  ret i64 {i}\n}}" for i in range(50))
stop = False
def work():
    while not stop:
        compile_text(text)
other = threading.Thread(target=work)
other.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        os._exit(len(compile_text(text)) < 100)
    assert os.waitpid(child, 0)[1] == 0
stop = True
other.join()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=120)
