"""Ways to lay an application out on GPUs: which of them fit, and what their engines cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rayspec.errors import ConfigError
from rayspec.planning.calibration import Calibration, ClassProfile, LaneProfile
from rayspec.planning.gpus import Gpu
from rayspec.planning.memory import GIB, Budget, budget
from rayspec.planning.model_sizes import Model
from rayspec.planning.roofline import lane_profile
from rayspec.planning.scaling_law import shifted
from rayspec.routing.types import Lane

__all__ = ["Layout", "Machine", "Needs", "layouts", "measured_layouts"]

_PARALLEL = (1, 2, 4, 8)
_TIERS = (1, 3, 5)


@dataclass(frozen=True, slots=True)
class Machine:
    """GPUs to spend."""

    gpu: Gpu
    count: int


@dataclass(frozen=True, slots=True)
class Needs:
    """What an engine has to take, in tokens and sequences."""

    max_model_len: int = 8192
    mean_context: float = 1024.0
    max_num_seqs: int = 256
    chunk_tokens: int = 2048
    utilization: float = 0.9


@dataclass(frozen=True, slots=True)
class Layout:
    """Engines of both lanes, as a calibration that can be simulated, and what fills their GPUs."""

    name: str
    calibration: Calibration
    replicas: Mapping[Lane, int]
    gpus: int
    memory: Mapping[str, Budget]


@dataclass(frozen=True, slots=True)
class _Engine:
    """A lane's engine that fits."""

    label: str
    profile: LaneProfile
    memory: Mapping[str, Budget]
    draft: Model | None = None


def layouts(
    machine: Machine,
    target: Model,
    drafts: Sequence[Model],
    classes: Mapping[str, ClassProfile],
    known_draft: float,
    needs: Needs,
) -> list[Layout]:
    """Return every layout that fits into the machine; ConfigError says by how much none does.

    Lanes may have different tensor parallelism, but together only equal or the least that fits.
    `classes` hold the acceptance of a draft of `known_draft` parameters.
    """
    plain = _fitting(machine, target, needs)
    speculative = [
        engine
        for parallel in _PARALLEL
        for draft in drafts
        if parallel + 1 <= machine.count
        and (engine := _speculative(machine.gpu, target, draft, parallel, needs)) is not None
    ]
    found = [_layout(target, classes, known_draft, one, n) for one, n in _alone(plain, machine)]
    found += [
        _layout(target, classes, known_draft, one, n) for one, n in _alone(speculative, machine)
    ]
    for engine in speculative:
        parallel = engine.profile.gpus - 1
        beside = {one.label: one for one in plain if one.profile.gpus == parallel}
        beside[plain[0].label] = plain[0]
        for other in beside.values():
            for count in range(1, machine.count // engine.profile.gpus + 1):
                left = machine.count - count * engine.profile.gpus
                for more in range(1, left // other.profile.gpus + 1):
                    found.append(_layout(target, classes, known_draft, engine, count, other, more))
    return found


def measured_layouts(calibration: Calibration, count: int) -> list[Layout]:
    """Return every layout of calibrated engines on `count` GPUs."""
    gpus = {lane: profile.gpus for lane, profile in calibration.lanes.items()}
    if not all(gpus.values()):
        raise ConfigError(
            "calibration", calibration.hardware, "is of a machine without GPUs: nothing to lay out"
        )
    most = {lane: count // each for lane, each in gpus.items()}
    found = []
    for speculative in range(most.get(Lane.SPECULATIVE, 0) + 1):
        for plain in range(most.get(Lane.PLAIN, 0) + 1):
            replicas = {Lane.SPECULATIVE: speculative, Lane.PLAIN: plain}
            replicas = {lane: n for lane, n in replicas.items() if n}
            used = sum(gpus[lane] * n for lane, n in replicas.items())
            if replicas and used <= count:
                name = " + ".join(f"{n} x {lane}" for lane, n in replicas.items())
                found.append(Layout(name, calibration, replicas, used, {}))
    if not found:
        least = min(gpus.values())
        raise ConfigError("gpus", count, f"the smallest calibrated engine takes {least}")
    return found


def _fitting(machine: Machine, target: Model, needs: Needs) -> list[_Engine]:
    """Return plain engines that fit, the smallest first."""
    found, missing = [], {}
    for parallel in _PARALLEL:
        if parallel > machine.count:
            break
        filled = _budget(machine.gpu, target, parallel, needs)
        missing[parallel] = filled.missing
        if not filled.missing:
            profile = _profile(machine.gpu, target, parallel, needs, filled)
            found.append(_Engine(f"plain TP{parallel}", profile, {f"TP{parallel}": filled}))
    if not found:
        parallel, lacking = max(missing.items())
        raise ConfigError(
            "gpus",
            machine.count,
            f"{target.name} does not fit: with tensor parallelism {parallel} each "
            f"{machine.gpu.name} lacks {lacking / GIB:.1f} GiB (its weights take "
            f"{_budget(machine.gpu, target, parallel, needs).weights / GIB:.1f} GiB of "
            f"{machine.gpu.memory / GIB:.1f} GiB); {_remedy(machine, target, needs)}",
        )
    return found


def _remedy(machine: Machine, target: Model, needs: Needs) -> str:
    """Return what would fit: more of the GPUs, or weights of 8 bits, if they do."""
    smaller = replace(target, numbers=replace(target.numbers, weight=1.0))
    more = _least(machine.gpu, target, needs)
    quantized = _least(machine.gpu, smaller, needs) if target.numbers.weight > 1 else None
    ways = [f"{more} GPUs"] if more is not None else []
    if quantized is not None and quantized <= machine.count:
        ways.append("--dtype fp8")
    elif quantized is not None and (more is None or quantized < more):
        ways.append(f"{quantized} GPUs with --dtype fp8")
    return f"it fits with {' or '.join(ways)}" if ways else "take larger GPUs or a smaller model"


def _least(gpu: Gpu, target: Model, needs: Needs) -> int | None:
    for parallel in _PARALLEL:
        if not _budget(gpu, target, parallel, needs).missing:
            return parallel
    return None


def _budget(gpu: Gpu, model: Model, parallel: int, needs: Needs, k: int = 0) -> Budget:
    return budget(
        model.shape,
        model.numbers,
        gpu.memory,
        tensor_parallel=parallel,
        max_model_len=needs.max_model_len,
        chunk_tokens=needs.chunk_tokens,
        max_num_seqs=needs.max_num_seqs,
        k=k,
        utilization=needs.utilization,
    )


def _speculative(
    gpu: Gpu, target: Model, draft: Model, parallel: int, needs: Needs
) -> _Engine | None:
    filled = _budget(gpu, target, parallel, needs, k=max(_TIERS))
    drafting = _budget(gpu, draft, 1, needs)
    if filled.missing or drafting.missing:
        return None
    profile = _profile(gpu, target, parallel, needs, filled, draft, drafting)
    label = f"TP{parallel} with draft {draft.name}"
    memory = {f"TP{parallel}, verifying": filled, f"draft {draft.name}": drafting}
    return _Engine(label, profile, memory, draft)


def _profile(
    gpu: Gpu,
    target: Model,
    parallel: int,
    needs: Needs,
    filled: Budget,
    draft: Model | None = None,
    drafting: Budget | None = None,
) -> LaneProfile:
    """Return an engine that runs as many sequences as its KV cache holds of the mean length."""
    tokens = min(filled.kv_tokens, drafting.kv_tokens if drafting else filled.kv_tokens)
    seats = int(max(min(needs.max_num_seqs, tokens // needs.mean_context), 1))
    return lane_profile(
        (target.shape, target.numbers),
        gpu,
        tensor_parallel=parallel,
        max_num_seqs=seats,
        chunk_tokens=needs.chunk_tokens,
        draft=None if draft is None else (draft.shape, draft.numbers),
        tiers=_TIERS if draft is not None else (),
    )


def _alone(engines: Sequence[_Engine], machine: Machine) -> Iterator[tuple[_Engine, int]]:
    for engine in engines:
        for count in range(1, machine.count // engine.profile.gpus + 1):
            yield engine, count


def _layout(
    target: Model,
    classes: Mapping[str, ClassProfile],
    known_draft: float,
    engine: _Engine,
    count: int,
    other: _Engine | None = None,
    more: int = 0,
) -> Layout:
    lane = Lane.PLAIN if engine.draft is None else Lane.SPECULATIVE
    profiles, replicas = {lane: engine.profile}, {lane: count}
    name, memory = f"{count} x {engine.label}", dict(engine.memory)
    if other is not None:
        profiles[Lane.PLAIN], replicas[Lane.PLAIN] = other.profile, more
        name += f" + {more} x {other.label}"
        memory |= other.memory
    draft = engine.draft
    calibration = Calibration(
        created="planned",
        model=target.name,
        draft="" if draft is None else draft.name,
        k_tiers=list(_TIERS),
        lanes=profiles,
        classes={
            key: profile if draft is None else shifted(profile, known_draft, draft.shape.parameters)
            for key, profile in classes.items()
        },
    )
    gpus = sum(profiles[key].gpus * number for key, number in replicas.items())
    return Layout(name, calibration, replicas, gpus, memory)
