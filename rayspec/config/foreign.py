"""Which arguments the installed vLLM takes, read from its source. Read at vLLM 0.32.0.

Importing vLLM takes seconds and starts its platform; a check of a file must do neither.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# Module file and class that declare them as fields.
ENGINE_ARGS = (("engine/arg_utils.py", "EngineArgs"), ("engine/arg_utils.py", "AsyncEngineArgs"))
# Only what shapes answers; the rest of FrontendArgs is about an HTTP server that we do not run.
FRONTEND_ARGS = (("entrypoints/launchers/cli_args.py", "BaseFrontendArgs"),)
SPECULATIVE_ARGS = (("config/speculative.py", "SpeculativeConfig"),)


def unknown(names: Iterable[str], classes: tuple[tuple[str, str], ...]) -> tuple[str, str] | None:
    """Return the first of `names` that no class declares, with a hint; None where vLLM is not."""
    known = {field for file, class_ in classes for field in _fields(file, class_)}
    for name in names:
        if known and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            return name, f"; did you mean {close[0]!r}?" if close else ""
    return None


def lacks(module: str) -> bool:
    """Whether vLLM is installed here without a `module` that it would import."""
    return find_spec("vllm") is not None and find_spec(module) is None


@cache
def _fields(file: str, class_: str) -> frozenset[str]:
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        return frozenset()
    try:
        tree = ast.parse((Path(spec.origin).parent / file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return frozenset()
    return frozenset(
        statement.target.id
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == class_
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    )
