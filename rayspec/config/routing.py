"""Configuration of classification and routing."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rayspec.config.fields import ClassName, Count, NonEmpty, Pattern, Section, Share, Speculation


class ClassConfig(Section):
    """What differs for one workload class; what is left out is as for all."""

    speculation: Speculation = Field(
        "auto",
        description="`on` and `off` fix whether the class is drafted for, `auto` measures. Among "
        "several lanes that draft, measurements decide in any case.",
    )
    acceptance_floor: Share | None = Field(
        None,
        description="The class's own acceptance floor, as a share of draft tokens; it holds with "
        "known step times, too.",
    )
    max_concurrency: Count | None = Field(
        None, description="The class's own limit of `max_speculative_concurrency`."
    )
    k: int | None = Field(
        None, ge=0, description="Most draft tokens per step for requests of this class."
    )
    hysteresis: Share | None = Field(
        None, description="The class's own `hysteresis`, as a share of the predicted latency."
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

    calibration: NonEmpty | None = Field(
        None,
        description="File that `rayspec calibrate` wrote for this model, best as an absolute path. "
        "It tells step times before the engines have measured their own, which then correct it. A "
        "mixture of experts speculates by itself only with one.",
    )
    hysteresis: Share = Field(
        0.03,
        description="A class changes lanes only for one whose predicted latency is smaller by this "
        "share.",
    )
    exploration_share: Share = Field(
        0.02,
        description="Share of the requests of a class that go where they are not predicted to be "
        "fastest, which keeps the class measured in every lane. 0 explores nothing.",
    )
    exploration_loss: float = Field(
        0.25,
        ge=0,
        description="Largest share by which a request may be predicted to take longer for the sake "
        "of exploration. Exploring costs `exploration_share` times this at most, in the mean.",
    )
    max_speculative_concurrency: Count | None = Field(
        None,
        description="Hard limit of sequences per speculative engine, from which on requests take "
        "another lane whatever is predicted. By default there is none, but 16 as long as the "
        "step times of a lane are unknown.",
    )
    acceptance_floor: Share = Field(
        0.4,
        description="As long as the step times of a lane are unknown, a class whose share of "
        "accepted draft tokens lies under this with confidence takes the plain lane. Known step "
        "times tell the class's breakeven instead.",
    )
    acceptance_half_life_s: float = Field(
        300.0,
        gt=0,
        description="Age in seconds at which what a request taught about its class (acceptance, "
        "lengths) counts half.",
    )
    acceptance_min_drafted: Count = Field(
        200,
        description="Recent draft tokens of a class before it is held against an acceptance floor.",
    )
    constrained_lane: Literal["plain", "speculative", "alternative"] = Field(
        "plain", description="Lane of requests with an enforced output format, grammar or tool."
    )
    classes: dict[ClassName, ClassConfig] = Field(
        default_factory=dict, description="Settings per workload class, by its name."
    )
    rules: list[RuleConfig] = Field(
        default_factory=list,
        description="Own classification rules, tried in order before the built-in ones.",
    )
