"""Writes a deployment that serves grown models, for machines that reach no model hub.

    python load_tests/gpu/grown_app.py deployments/gpu-4.yaml --shape 70b --draft shallow \\
        --models /tmp/models --out /tmp/gpu-4-grown.yaml
    PYTHONPATH=$PWD serve run /tmp/gpu-4-grown.yaml

Everything but the models stays as the deployment has it: the target is SmolLM2 grown into `--shape`
(load_tests/grow.py), made while it loads; the draft a folder, such as load_tests/distil.py writes,
or a shape to grow into.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from load_tests.growth import SHAPES, GrownModel  # noqa: E402
from rayspec.models.fetch import resolve  # noqa: E402

SOURCE = "smollm2"
EXTENSION = "load_tests.growth.loader.WorkerExtension"
# Of a deployment's `frontend_args`, what belongs to the model that it names.
OF_THE_MODEL = ("enable_auto_tool_choice", "tool_call_parser")


def grown(name: str, models: Path) -> Path:
    """Write what the load format `grow` needs of a target, and return the folder."""
    return GrownModel.of(resolve(SOURCE), SHAPES[name]).write_config(models / f"grown-{name}")


def draft_folder(name: str, models: Path) -> Path:
    """Return a draft's folder, grown with its weights if `name` is a shape."""
    if name not in SHAPES:
        return Path(name).resolve()
    folder = models / f"grown-{name}-weights"
    if not (folder / "model.safetensors").exists():
        GrownModel.of(resolve(SOURCE), SHAPES[name]).write(folder)
    return folder


def adapt(deployment: dict[str, Any], target: Path, draft: Path, options: Any) -> dict[str, Any]:
    """Put the grown models in the place of the deployment's own."""
    args = deployment["applications"][0]["args"]
    args |= {"model": str(target), "served_model_name": "grown", "max_model_len": options.max_len}
    for key in OF_THE_MODEL:
        args.get("frontend_args", {}).pop(key, None)
    args["draft"] |= {"model": str(draft), "quantization": "none"}
    for lane in ("speculative", "plain"):
        settings = args.get(lane)
        if settings is None:
            continue
        if lane in options.without:
            del args[lane]
            continue
        engine = settings.setdefault("engine_args", {})
        engine |= {"load_format": "grow", "worker_extension_cls": EXTENSION}
        engine["compilation_config"] = {"cudagraph_capture_sizes": list(sizes(settings, lane))}
        settings.setdefault("env", {})["PYTHONPATH"] = f"{ROOT}:{options.pythonpath}".rstrip(":")
    for assignment in options.set:
        put(args, *assignment.split("=", 1))
    return deployment


def put(args: dict[str, Any], field: str, value: str) -> None:
    """Set a field, named with dots, to a YAML value."""
    *path, last = field.split(".")
    for name in path:
        args = args.setdefault(name, {})
    args[last] = yaml.safe_load(value)


def sizes(settings: dict[str, Any], lane: str) -> list[int]:
    """Return few batch sizes to capture, because a 70B engine takes minutes for all of them."""
    k = settings.get("num_speculative_tokens", 0) if lane == "speculative" else 0
    batches = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= settings.get("max_num_seqs", 64)]
    return sorted({n * width for n in batches for width in {1, k + 1}})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("deployment", type=Path)
    parser.add_argument("--shape", choices=sorted(SHAPES), required=True, help="of the target")
    parser.add_argument("--draft", required=True, help="a shape, or a model folder")
    parser.add_argument("--models", type=Path, required=True, help="folder for what is written")
    parser.add_argument("--out", type=Path, required=True, help="the deployment to write")
    parser.add_argument("--max-len", type=int, default=2048, help="max_model_len (2048)")
    parser.add_argument("--without", nargs="*", default=[], choices=["plain"], help="lanes to drop")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="FIELD=VALUE", help="as in plain.max_num_seqs=32"
    )
    parser.add_argument("--pythonpath", default="", help="more of the engines' PYTHONPATH")
    options = parser.parse_args()
    deployment = yaml.safe_load(options.deployment.read_text())
    target = grown(options.shape, options.models)
    adapted = adapt(deployment, target, draft_folder(options.draft, options.models), options)
    options.out.write_text(yaml.safe_dump(adapted, sort_keys=False))
    print(options.out)


if __name__ == "__main__":
    main()
