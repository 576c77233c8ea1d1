"""Models on local disk: aliases, Hugging Face ids and paths resolve to a folder."""

from rayspec.models.fetch import resolve

__all__ = ["resolve"]
