"""The parts of these pages that are made from the sources: the op table, the conventions, the API.

`conf.py` calls `write_generated` at each build. `python docs/tables.py` puts the table of
conventions, as the op records state it, into conventions.md; a test fails while the two differ.
"""

import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cartograd as cg
from cartograd.ops.op import REGISTRY

HERE = Path(__file__).parent
BEGIN, END = "<!-- from the op records: begin -->", "<!-- end -->"


def cell(text: object) -> str:
    """Text that may stand in a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def code(text: object) -> str:
    """Text in a monospaced cell."""
    return f"`{cell(text)}`" if str(text).strip() else ""


def sentence(text: str) -> str:
    """Text that may stand in a cell, with the capital and the full stop of a sentence."""
    first = text[:1] if text.startswith("inf ") else text[:1].upper()
    return cell(first + text[1:]).rstrip(".") + "."


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


# --- ops -----------------------------------------------------------------------------------------


def derivative(op: Any) -> str:
    """How an op is differentiated, in a word or with the reason why it is not."""
    if not op.differentiable:
        return f"none: {op.why}"
    if op.partials is not None:
        return "partials"
    return "transpose" if op.transpose is not None else "vjp and jvp"


def internal(op: Any) -> bool:
    """Whether an op is made by derivative rules only, and has no function of its own."""
    return "internal" in op.tags


def families() -> dict[str, list[Any]]:
    """The ops by family, in the order of registration; internal ones at the end of theirs."""
    found: dict[str, list[Any]] = {}
    for op in sorted(REGISTRY.values(), key=internal):
        found.setdefault(op.family, []).append(op)
    return found


def ops_page() -> str:
    """The page that lists every op: what it means, its dtypes, its derivative rule."""
    pieces = [
        "# The ops\n",
        f"All {len(REGISTRY)} ops (primitives), as their records in `cartograd/ops/` state them. "
        "A composite, which is built from ops, is not listed: it has no rules of its own. "
        "Ops marked * are made by derivative rules only.\n",
    ]
    for family, ops in families().items():
        rows = [
            (
                code(op.name) + "\\*" * internal(op),
                cell(op.doc),
                code(op.formula),
                cell(op.kinds),
                cell(derivative(op)),
            )
            for op in ops
        ]
        pieces.append(f"## {family.capitalize()}\n")
        pieces.append(table(("op", "value", "formula", "dtypes", "derivative rule"), rows))
    return "\n".join(pieces)


def conventions_table() -> str:
    """The derivative that each op with a kink or a tie has there."""
    ops = [op for op in REGISTRY.values() if op.kink and not internal(op)]
    rows = [(code(op.name), sentence(op.kink)) for op in sorted(ops, key=lambda op: op.name)]
    return table(("op", "at its kink or tie"), rows)


def conventions_page(page: str) -> str:
    """conventions.md with the table as the records state it now."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{conventions_table()}\n{END}{after}"


# --- the public names ----------------------------------------------------------------------------


def public_modules() -> list[types.ModuleType]:
    """`cartograd` and the modules that it exports, in the order in which they are met."""
    found = [cg]
    for module in found:
        for name in module.__all__:
            thing = getattr(module, name)
            exports = isinstance(thing, types.ModuleType) and hasattr(thing, "__all__")
            if exports and thing not in found:
                found.append(thing)
    return found


class Written(str):
    """An annotation that is shown as it is written in the source."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def signature(name: str, thing: Any) -> str:
    """A call as it is written, or the bare name."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return name

    def shown(annotation: Any) -> Any:
        return Written(annotation) if isinstance(annotation, str) else annotation

    parameters = [
        parameter.replace(annotation=shown(parameter.annotation))
        for parameter in found.parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    call = found.replace(parameters=parameters, return_annotation=shown(found.return_annotation))
    return name + re.sub(r"<(?:function|class|object) ([\w.<>]+)[^>]*>", r"\1", str(call))


def prose(text: str) -> str:
    """Docstring text as Markdown: what is neither code nor a list stays as it is written."""
    parts = re.split(r"(``.+?``|`[^`\n]+`)", text)
    plain = (re.sub(r"([<\\*_\[\]{}#|$])", r"\\\1", part) for part in parts[::2])
    coded = iter(part for part in parts[1::2])
    joined = "".join(part + next(coded, "") for part in plain)
    return re.sub(r"^(\s*)\\\*(?=\s)", r"\1*", joined, flags=re.MULTILINE)


def docstring(thing: Any) -> str:
    """A docstring as Markdown, its examples fenced."""
    out: list[str] = []
    paragraph: list[str] = []
    example = False

    def close() -> None:
        if paragraph:
            body = "\n".join(paragraph)
            out.append(f"```pycon\n{body}\n```\n" if example else prose(body) + "\n")
            paragraph.clear()

    for line in (inspect.getdoc(thing) or "").splitlines():
        starts = line.lstrip().startswith(">>>")
        if not line.strip() or (starts and not example):
            close()
            example = False
        if line.strip():
            example = example or starts
            paragraph.append(line)
    close()
    return "\n".join(out)


def methods(cls: type) -> Iterator[str]:
    """The public methods and properties that a class defines, a paragraph each."""
    for name, member in vars(cls).items():
        target = member.fget if isinstance(member, property) else member
        target = getattr(target, "__func__", target)
        if name.startswith("_") or not (inspect.isfunction(target) and target.__doc__):
            continue
        shown = name if isinstance(member, property) else signature(name, target)
        yield f"`.{shown}`\n\n{docstring(target)}"


def entry(name: str, thing: Any) -> str:
    """One public name."""
    if isinstance(thing, types.ModuleType):
        return ""
    if not (inspect.isroutine(thing) or isinstance(thing, type)):
        return f"## {prose(name)}\n\n`{cell(repr(thing))}`\n"
    pieces = [
        f"## {prose(name)}\n",
        f"```python\n{signature(name, thing)}\n```\n",
        docstring(thing),
    ]
    if isinstance(thing, type):
        pieces.extend(methods(thing))
    return "\n".join(pieces)


def api_page(module: types.ModuleType) -> str:
    """The page of one module."""
    pieces = [f"# {prose(module.__name__)}\n", docstring(module)]
    pieces += [entry(name, getattr(module, name)) for name in sorted(module.__all__, key=str.lower)]
    return "\n".join(pieces)


def api_index(names: list[str]) -> str:
    """The contents of the reference."""
    return "# Reference\n\n```{toctree}\n:maxdepth: 1\n\n" + "\n".join(names) + "\n```\n"


def write_generated(folder: Path) -> None:
    """Write ops.md and the pages of api/, which are not kept in the repository."""
    (folder / "ops.md").write_text(ops_page(), encoding="utf-8")
    api = folder / "api"
    api.mkdir(exist_ok=True)
    for stale in api.glob("*.md"):
        stale.unlink()
    modules = public_modules()
    for module in modules:
        (api / f"{module.__name__}.md").write_text(api_page(module), encoding="utf-8")
    index = api_index([module.__name__ for module in modules])
    (api / "index.md").write_text(index, encoding="utf-8")


if __name__ == "__main__":
    target = HERE / "conventions.md"
    target.write_text(conventions_page(target.read_text(encoding="utf-8")), encoding="utf-8")
