"""The half of the backend that would compile, and never does."""

from __future__ import annotations

from typing import Any

from triton.backends.compiler import BaseBackend


class InterpreterBackend(BaseBackend):
    @staticmethod
    def supports_target(target: Any) -> bool:
        return bool(target.backend == "cpu")

    def hash(self) -> str:
        return "rayspec-triton-cpu"

    def parse_options(self, options: dict[str, Any]) -> Any:
        return options

    def add_stages(self, stages: Any, options: Any, language: Any) -> None:
        raise NotImplementedError("kernels run in the interpreter only: set TRITON_INTERPRET=1")

    def load_dialects(self, context: Any) -> None:
        pass

    def get_module_map(self) -> dict[str, Any]:
        return {}
