from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from rayspec.audit.doctor_application import gather_application, locate, probe
from rayspec.audit.doctor_facts import Gpu
from rayspec.audit.doctor_gather import gather_machine
from rayspec.audit.doctor_gpus import parse_driver_cuda, parse_gpus, parse_links
from rayspec.errors import ConfigError

SMI_LIST = """\
0, NVIDIA H100 80GB HBM3, 81559, 4, 580.65.06
1, NVIDIA A100-SXM4-40GB MIG 1g.5gb, [N/A], [N/A], 580.65.06
"""
SMI_HEAD = "| NVIDIA-SMI 580.65.06      Driver Version: 580.65.06      CUDA Version: 13.0     |\n"
TOPOLOGY = """\
\t\x1b[4mGPU0\tGPU1\tGPU2\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m
GPU0\t X \tNV18\tSYS\tPXB\t0-47\t0\t\tN/A
GPU1\tNV18\t X \tPHB\tSYS\t0-47\t0\t\tN/A
GPU2\tSYS\tPHB\t X \tSYS\t48-95\t1\t\tN/A
NIC0\tPXB\tSYS\tSYS\t X

Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes
  NV#  = Connection traversing a bonded set of # NVLinks
"""
TOKENIZER = {"model": {"vocab": {"a": 0, "b": 1}, "merges": []}, "added_tokens": []}


def test_gpus_of_nvidia_smi() -> None:
    devices, driver = parse_gpus(SMI_LIST)

    assert driver == "580.65.06"
    assert devices == (
        Gpu(0, "NVIDIA H100 80GB HBM3", 81559 * 2**20, 4 * 2**20),
        Gpu(1, "NVIDIA A100-SXM4-40GB MIG 1g.5gb", 0, 0),
    )
    assert parse_gpus("NVIDIA-SMI has failed\n") == ((), None)


def test_cuda_of_the_driver() -> None:
    assert parse_driver_cuda(SMI_HEAD) == (13, 0)
    assert parse_driver_cuda("") is None


def test_links_of_the_topology() -> None:
    links = parse_links(TOPOLOGY)

    assert links[0, 1] == links[1, 0] == "NV18"
    assert (links[0, 2], links[1, 2]) == ("SYS", "PHB")
    assert len(links) == 6
    assert parse_links("") == {}


def test_this_machine() -> None:
    machine = gather_machine()

    assert machine.python.startswith("3.")
    assert machine.packages["ray"] == machine.required["ray"].removeprefix("==")
    assert machine.required["python"]
    assert 1 <= machine.cores <= len(os.sched_getaffinity(0))
    assert 0 < machine.memory_free <= machine.memory
    assert machine.open_files[0] > 0
    assert machine.cpu_flags


def test_secrets_stay_out_of_the_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "ray_secret")

    assert "secret" not in repr(gather_machine())


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o644, 0o700), (0o600, 0o755)])
def test_a_token_that_nobody_reaches_is_not_exposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_mode: int, folder_mode: int
) -> None:
    token = tmp_path / "auth_token"
    token.write_text("t")
    token.chmod(file_mode)
    tmp_path.chmod(folder_mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))

    machine = gather_machine()

    assert machine.token_file == token
    assert not machine.token_exposed


def model_folder(path: Path, **config: object) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"vocab_size": 2, **config}))
    (path / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (path / "model.safetensors").write_bytes(b"")
    return path


def test_a_model_folder(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", hidden_size=8)

    found = locate(str(folder))

    assert found.folder == folder
    assert found.config["hidden_size"] == 8


def test_a_folder_without_all_of_its_weights(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    assert locate(str(folder)).missing == "lacks 1 of 2 weight files, model-2.safetensors first"
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors").unlink()
    assert "no weights" in locate(str(folder)).missing


def test_what_is_no_model_at_all(tmp_path: Path) -> None:
    assert locate(str(tmp_path)).missing.startswith("is neither")
    assert locate("./nowhere").missing.startswith("is neither")


def test_a_model_that_is_not_in_the_hubs_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("rayspec.models.hub.reachable", lambda: False)

    assert locate("nobody/nothing-of-this-name").missing == "is not on this machine"


def test_an_application(tmp_path: Path) -> None:
    target = model_folder(tmp_path / "target")
    draft = model_folder(tmp_path / "draft", vocab_size=3)
    file = tmp_path / "app.yaml"
    file.write_text(
        "http_options: {host: 127.0.0.1, port: 1}\n"
        "tracing_config: {sampling_ratio: 0.5}\n"
        "applications:\n"
        "  - import_path: rayspec.app:build\n"
        f"    args: {{model: {target}, speculative: {{}}, "
        f"draft: {{kind: model, model: {draft}}}}}\n"
    )

    app = gather_application(file, None, has_gpu=False)

    assert (app.port.host, app.port.number) == ("127.0.0.1", 1)
    assert app.tracing == {"sampling_ratio": 0.5}
    assert app.difference is not None
    assert app.difference.endswith("vocabulary sizes differ: target 2, draft 3")
    assert {model.folder for model in app.models.values()} == {target, draft}


def test_the_default_application() -> None:
    app = gather_application(None, None, has_gpu=False)

    assert app.config.models() == ["smollm2"]
    assert app.tracing is None


def test_an_application_that_is_not_valid(tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text("model: smollm2\n")

    with pytest.raises(ConfigError):
        gather_application(tmp_path / "app.yaml", None, has_gpu=False)


def test_a_free_port_and_one_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
        assert probe("127.0.0.1", number).state == "taken"
    assert probe("127.0.0.1", number).state == "free"
    assert probe("192.0.2.1", 8000).state == "no such address"


@contextmanager
def metrics(text: bytes) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_an_application_of_ours_that_runs_already() -> None:
    with metrics(b"rayspec_requests_total 1\n") as number:
        assert probe("127.0.0.1", number).state == "serving"
    with metrics(b"other_total 1\n") as number:
        assert probe("127.0.0.1", number).state == "taken"
