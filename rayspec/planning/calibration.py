"""What `rayspec calibrate` measured, as one versioned JSON file that every planning tool reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rayspec.errors import ConfigError
from rayspec.routing.cost_model import LaneCost, PrefillTimes, StepPoint, StepTimes
from rayspec.routing.curves import ClassPrior, Measured
from rayspec.routing.traffic import Lengths
from rayspec.routing.types import Lane

__all__ = [
    "CALIBRATED",
    "FORMAT",
    "WITHOUT_ALTERNATIVE",
    "Calibration",
    "ClassProfile",
    "LaneProfile",
    "PrefillFit",
    "Step",
]

FORMAT: Final = 1
CALIBRATED: Final = (Lane.SPECULATIVE, Lane.PLAIN)
"""The lanes that a calibration, and what plans with one, is about."""
WITHOUT_ALTERNATIVE: Final = (
    "leave this lane out to calibrate: a calibration is of the speculative and the plain lane, and "
    "an alternative one learns its step times while it serves"
)
"""What to do about the lane that a calibration does not know."""

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Step(_Part):
    """A measured step; see `routing.cost_model.StepPoint`. `k` drafts of each were verified."""

    batch: int = Field(ge=1)
    k: int = Field(ge=0)
    context: int = Field(ge=0)
    seconds: Positive


class PrefillFit(_Part):
    """A chunk of n prompt tokens makes its step `base_s` + n · `per_token_s` long."""

    base_s: float = Field(ge=0)
    per_token_s: Positive


class LaneProfile(_Part):
    """One engine of a lane: its step times, prefill and limits."""

    steps: list[Step] = Field(min_length=1)
    prefill: PrefillFit
    max_num_seqs: int = Field(ge=1)
    chunk_tokens: int = Field(2048, ge=1)
    contention: float = Field(
        1.0, ge=1, description="A step while the other lane works too ÷ one while it idles."
    )
    mixing: Share = Field(
        0.0,
        description="A step with prompt tokens takes the longer of its decoding and an empty "
        "prefill, and this share of the shorter: 0 where weights are read once for both.",
    )
    wait_steps: int = Field(
        0,
        ge=0,
        le=1,
        description="Whole steps that a request waits after the one in which it comes: 1 where the "
        "next step is always scheduled ahead.",
    )
    overhead_s: float = Field(
        0.0, ge=0, description="What a request waits outside its engine: HTTP, routing, tokenising."
    )
    busy_overhead_s: float = Field(
        0.0, ge=0, description="What it waits there besides if it comes while the engine works."
    )
    gpus: int = Field(0, ge=0, description="GPUs of one engine, its draft's included.")

    def cost(self) -> LaneCost:
        """Return the profile as the cost model takes it."""
        points = (StepPoint(s.batch, s.k, s.context, s.seconds) for s in self.steps)
        return LaneCost(
            StepTimes(points),
            PrefillTimes(self.prefill.base_s, self.prefill.per_token_s),
            self.max_num_seqs,
            self.chunk_tokens,
        )


class ClassProfile(_Part):
    """What a workload class is like: acceptance per position, and typical lengths in tokens.

    `acceptance[i]` is of drafts at position i whose predecessors were accepted. A step that got no
    draft there counts as one that was not accepted, so that `expected_tokens` is what a step yields
    with drafts that often find nothing, such as prompt lookup.
    """

    acceptance: list[Share]
    drafted: int = Field(0, ge=0, description="Draft tokens behind the acceptance.")
    coverage: Share = Field(
        1.0, description="Draft tokens offered ÷ asked for; a step verifies K · coverage of them."
    )
    prompt_tokens: Positive = 256
    output_tokens: Positive = 128


class Calibration(_Part):
    """One application on one kind of machine, measured."""

    format: Literal[1] = FORMAT
    created: str = Field(description="ISO date and time.")
    model: str
    draft: str = Field("", description="The draft's kind, and model if it is one.")
    hardware: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    k_tiers: list[int] = Field(min_length=1)
    lanes: dict[Lane, LaneProfile] = Field(min_length=1)
    classes: dict[str, ClassProfile] = Field(default_factory=dict)
    draft_s: float | None = Field(
        None, ge=0, description="Median time of a drafting round, as the draft reports it."
    )
    residuals: dict[str, float] = Field(
        default_factory=dict, description="Median relative error of what was fitted, by its name."
    )
    notes: list[str] = Field(
        default_factory=list, description="What was not measured but assumed, and sources."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(k < 0 for k in self.k_tiers):
            raise ValueError("k_tiers: draft lengths are not negative")
        if unknown := self.lanes.keys() - set(CALIBRATED):
            raise ValueError(f"lanes.{min(unknown)}: {WITHOUT_ALTERNATIVE}")
        return self

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a file; ConfigError names what is wrong in it."""
        try:
            return cls.model_validate_json(path.read_text())
        except OSError as error:
            raise ConfigError(
                "calibration",
                str(path),
                f"cannot be read: {error.strerror}; make one with `rayspec calibrate`",
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise ConfigError(
                "calibration",
                str(path),
                f"{where}: {first['msg']}; measure again with `rayspec calibrate`",
            ) from None

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        partial = path.with_suffix(path.suffix + ".partial")
        partial.write_text(self.model_dump_json(indent=1) + "\n")
        partial.replace(path)

    def costs(self) -> Mapping[Lane, LaneCost]:
        """Return the lanes as the cost model takes them."""
        return {lane: profile.cost() for lane, profile in self.lanes.items()}

    def measured(self) -> Measured:
        """Return the whole as the router takes it."""
        return Measured(
            costs=self.costs(),
            contention={lane: profile.contention for lane, profile in self.lanes.items()},
            overhead_s={lane: profile.overhead_s for lane, profile in self.lanes.items()},
            classes={
                name: ClassPrior(
                    tuple(profile.acceptance), Lengths(profile.prompt_tokens, profile.output_tokens)
                )
                for name, profile in self.classes.items()
            },
        )
