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


class RuleConfig(Section):
    """Gives a workload class to requests by a header or a field of the body."""

    workload_class: ClassName = Field(description="The class of requests that match.")
    header: NonEmpty | None = Field(None, description="Name of the header to look at.")
    body_field: NonEmpty | None = Field(
        None,
        description="Field of the JSON body to look at; dots lead inwards (`metadata.team`).",
    )
    pattern: Pattern = Field(description="Regular expression that is searched in the value.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.header is None) == (self.body_field is None):
            raise ValueError("header: give exactly one of 'header' and 'body_field'")
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
