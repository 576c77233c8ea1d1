"""Configuration of classification and routing."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rayspec.config.fields import ClassName, Count, NonEmpty, Pattern, Section, Share, Speculation


class ClassConfig(Section):
    """What differs for one workload class; what is left out is as for all."""

    speculation: Speculation = Field(
        "auto", description="`on` and `off` fix the lane of the class, `auto` measures."
    )
    acceptance_floor: Share | None = Field(
        None, description="The class's own acceptance floor, as a share of draft tokens."
    )
    max_concurrency: Count | None = Field(
        None, description="The class's own limit of `max_speculative_concurrency`."
    )
    k: int | None = Field(
        None, ge=0, description="Most draft tokens per step for requests of this class."
    )


class HeaderConfig(Section):
    """A condition on one header of the request."""

    name: NonEmpty = Field(description="Name of the header, in any case.")
    pattern: Pattern = Field(
        description="Regular expression that is searched in its value, ignoring case."
    )


class RuleConfig(Section):
    """Gives a workload class to the requests that meet all of its conditions."""

    workload_class: ClassName = Field(description="The class of requests that match.")
    header: HeaderConfig | None = Field(None, description="A header that must match.")
    system_pattern: Pattern | None = Field(
        None, description="Regular expression searched in the system text, ignoring case."
    )
    prompt_pattern: Pattern | None = Field(
        None,
        description="Regular expression searched in the last user message or the prompt, ignoring "
        "case. Of long texts only the beginning and the end are looked at.",
    )
    min_prompt_chars: Count | None = Field(
        None, description="Fewest characters of the whole prompt."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        conditions = ("header", "system_pattern", "prompt_pattern", "min_prompt_chars")
        if all(getattr(self, name) is None for name in conditions):
            raise ValueError(f"header: give at least one condition ({', '.join(conditions)})")
        return self


class RoutingConfig(Section):
    """Which lane a request takes when it does not say so itself."""

    max_speculative_concurrency: Count = Field(
        16,
        description="Sequences per speculative engine from which on requests take the plain lane: "
        "a busy engine has no idle compute left for verification.",
    )
    acceptance_floor: Share = Field(
        0.4,
        description="A class whose share of accepted draft tokens lies under this with confidence "
        "takes the plain lane.",
    )
    acceptance_half_life_s: float = Field(
        300.0, gt=0, description="Age in seconds at which a measurement counts half."
    )
    acceptance_min_drafted: Count = Field(
        200, description="Recent draft tokens of a class before its acceptance is believed."
    )
    exploration_share: Share = Field(
        0.02,
        description="Share of the requests of a class under the floor that speculate all the same, "
        "which keeps the class measured.",
    )
    constrained_lane: Literal["plain", "speculative"] = Field(
        "plain", description="Lane of requests with an enforced output format, grammar or tool."
    )
    classes: dict[ClassName, ClassConfig] = Field(
        default_factory=dict, description="Settings per workload class, by its name."
    )
    rules: list[RuleConfig] = Field(
        default_factory=list,
        description="Own classification rules, tried in order before the built-in ones.",
    )
