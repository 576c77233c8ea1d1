"""Functions and prose of the Python packages on this machine, and of Debian's documentation.

Only of packages that state a licence from a list, which the draft's description then names.
"""

from __future__ import annotations

import ast
import random
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final

__all__ = ["Function", "Harvest", "harvest", "licence_of"]

_PERMISSIVE: Final = re.compile(
    r"\b(MIT(-0|-CMU)?|BSD|0BSD|Apache|PSF|Python Software Foundation|ISC|MPL|Mozilla Public|"
    r"Unlicense|CC0|ZPL|Zope|Expat|zlib|Python-2)\b",
    re.IGNORECASE,
)
_REFUSED: Final = re.compile(r"\b(A?L?GPL|GNU|proprietary|EULA|NVIDIA|Intel)", re.IGNORECASE)
_FILES_EACH, _FILES = 120, 4000
_LINES = range(4, 36)
_PROSE_CHARS = range(300, 1800)
_DEBIAN: Final = Path("/usr/share/doc")


@dataclass(frozen=True, slots=True)
class Function:
    """A function: its name, the names of its parameters, what it does, and its source."""

    name: str
    parameters: tuple[str, ...]
    summary: str
    source: str


@dataclass(slots=True)
class Harvest:
    """What was found, and in packages of which licence: licence → packages."""

    functions: list[Function] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    licences: dict[str, list[str]] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Return what a draft's description says of it."""
        return {
            "functions": len(self.functions),
            "prose": len(self.prose),
            "licences": {name: sorted(found) for name, found in sorted(self.licences.items())},
        }


def harvest(
    seed: int = 0, *, files: int = _FILES, debian: Path = _DEBIAN, stdlib: bool = True
) -> Harvest:
    """Return functions and prose in a drawn order, from at most `files` Python files."""
    rng = random.Random(seed)
    found = Harvest()
    sources: list[Path] = []
    if stdlib:
        root = Path(sysconfig.get_path("stdlib"))
        modules = [
            file
            for file in [*root.glob("*.py"), *root.glob("[a-z]*/*.py")]
            if not {"site-packages", "test", "tests"} & set(file.parts)
        ]
        sources += rng.sample(sorted(modules), min(len(modules), 3 * _FILES_EACH))
        found.licences.setdefault("PSF-2.0", []).append("Python's standard library")
    for package in sorted(_packages(), key=lambda each: str(each.name).lower()):
        licence = licence_of(package)
        if licence is None:
            continue
        found.licences.setdefault(licence, []).append(f"{package.name} {package.version}")
        found.packages.append(str(package.name))
        found.prose += _paragraphs(_description(package))
        inside = [file for file in package.files or () if file.suffix == ".py"]
        sources += [
            Path(str(package.locate_file(file)))
            for file in rng.sample(inside, min(len(inside), _FILES_EACH))
        ]
    for file in rng.sample(sources, min(len(sources), files)):
        _read_source(file, found)
    _read_debian(debian, found)
    found.functions = list({each.source: each for each in found.functions}.values())
    found.prose = list(dict.fromkeys(found.prose))
    rng.shuffle(found.functions)
    rng.shuffle(found.prose)
    return found


def licence_of(package: Any) -> str | None:
    """Return the licence that a distribution states, if it is one of those that are used."""
    about = package.metadata
    classified = [
        line.rsplit("::", 1)[1].strip()
        for line in about.get_all("Classifier") or ()
        if line.startswith("License ::") and line.rsplit("::", 1)[1].strip() != "OSI Approved"
    ]
    stated = about.get("License-Expression") or ", ".join(classified) or about.get("License") or ""
    first = stated.strip().splitlines()[0][:80] if stated.strip() else ""
    if not _PERMISSIVE.search(first) or _REFUSED.search(first):
        return None
    return first


def _packages() -> Iterator[Any]:
    seen: set[str] = set()
    for package in metadata.distributions():
        name = str(package.metadata["Name"]).lower()
        if name not in seen and name != "rayspec":
            seen.add(name)
            yield package


def _description(package: Any) -> str:
    text = package.metadata.get_payload() if hasattr(package.metadata, "get_payload") else ""
    return text if isinstance(text, str) else ""


def _paragraphs(text: str) -> list[str]:
    """Return the prose of a README: no code, links, tables or lists."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    paragraphs, kept = [], ""
    for block in re.split(r"\n\s*\n", text):
        block = " ".join(block.split())
        letters = sum(character.isalpha() or character == " " for character in block)
        if len(block) < 80 or letters < 0.85 * len(block) or not block.isascii():
            continue
        kept = f"{kept}\n\n{block}" if kept else block
        if len(kept) >= _PROSE_CHARS.start:
            paragraphs.append(kept[: _PROSE_CHARS.stop])
            kept = ""
    return paragraphs


def _read_source(file: Path, found: Harvest) -> None:
    try:
        source = file.read_text(encoding="utf-8")
        if len(source) > 200_000:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's escapes
            tree = ast.parse(source)
    except (OSError, ValueError, SyntaxError, RecursionError):
        return
    lines = source.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node) or ""
            if len(text) >= _PROSE_CHARS.start:
                found.prose += _paragraphs(text)[:1]
            if isinstance(node, ast.FunctionDef) and (function := _function(node, text, lines)):
                found.functions.append(function)


def _function(node: ast.FunctionDef, text: str, lines: list[str]) -> Function | None:
    first = re.split(r"(?<=[.!?])\s|\n\s*\n", text.strip(), maxsplit=1)[0]
    summary = " ".join(first.split()).rstrip(".")
    if not 20 <= len(summary) <= 140 or not summary.isascii() or not summary[0].isupper():
        return None
    if node.name.startswith("_") or any(mark in summary for mark in ("`", ":", "<", "{", ">>>")):
        return None
    begin, end = node.lineno - 1, node.end_lineno or node.lineno
    if end - begin not in _LINES:
        return None
    indent = len(lines[begin]) - len(lines[begin].lstrip())
    source = "\n".join(line[indent:].rstrip() for line in lines[begin:end])
    if not source.isascii() or len(source) > 1600:
        return None
    parameters = [each.arg for each in node.args.args if each.arg not in ("self", "cls")]
    return Function(node.name, tuple(parameters), summary, source)


def _read_debian(root: Path, found: Harvest) -> None:
    used: Counter[str] = Counter()
    for file in sorted(root.glob("*/README*"))[:500]:
        licence = _debian_licence(file.parent / "copyright")
        if licence is None or file.suffix == ".gz":
            continue
        try:
            found.prose += _paragraphs(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
        used[licence] += 1
        found.licences.setdefault(licence, []).append(f"Debian's {file.parent.name}")
    for licence in used:
        found.licences[licence] = list(dict.fromkeys(found.licences[licence]))


def _debian_licence(file: Path) -> str | None:
    """Return the licences of a machine-readable copyright file if all of them are used here."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    names = {line.split(":", 1)[1].strip() for line in re.findall(r"^License:.*$", text, re.M)}
    names.discard("")
    if not names or any(not _PERMISSIVE.search(n) or _REFUSED.search(n) for n in names):
        return None
    return " and ".join(sorted(names))[:80]
