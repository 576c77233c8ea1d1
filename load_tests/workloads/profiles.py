"""What requests of each workload class look like.

Medians and spreads are round numbers in the range of public traces (chat: ShareGPT and the Azure
conversation trace; code: short questions or questions about pasted code, long answers; summaries:
long in, short out). `--prompt-scale` and `--output-scale` fit them to other traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from load_tests.workloads.lengths import Lengths

__all__ = ["PROFILES", "Profile"]


@dataclass(frozen=True, slots=True)
class Profile:
    """Lengths of first prompts and of answers, turns of a session, share of the default mix.

    `material` is what makes a short instruction a long prompt: prose, code, records or nothing.
    """

    prompt: Lengths
    output: Lengths
    turns: float
    share: float
    material: str = ""
    json: bool = False


PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        "chat": Profile(Lengths(40, 1.0, 8, 1200), Lengths(180, 0.7, 8, 1024), 3.0, 0.35, "prose"),
        "code": Profile(Lengths(160, 1.0, 16, 3000), Lengths(260, 0.6, 16, 1024), 2.0, 0.2, "code"),
        "summarize": Profile(
            Lengths(700, 0.7, 100, 6000), Lengths(110, 0.4, 16, 400), 1.0, 0.15, "prose"
        ),
        "structured": Profile(
            Lengths(180, 0.8, 24, 2000), Lengths(110, 0.5, 16, 512), 1.0, 0.1, "records", json=True
        ),
        "creative": Profile(Lengths(40, 0.6, 8, 400), Lengths(380, 0.5, 32, 1536), 1.5, 0.1),
        "multilingual": Profile(Lengths(40, 0.6, 8, 400), Lengths(160, 0.6, 8, 768), 2.0, 0.1),
    }
)
