"""Suspects behind servers that others wrote, and behind ``heirmark serve`` as it is installed; each started and ended here.

``mlflow`` and ``mlserver`` are looked for on the PATH, so that they may live in environments of their own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import Tensor

pytest.importorskip("httpx")
pytest.importorskip("fastapi")

from heirmark.files import atomic_write_json
from heirmark.jobs.opening import Named, open_suspect
from heirmark.jobs.services import Asking
from heirmark.querying.transcript import read_transcript
from heirmark.runtime import Runtime
from heirmark.verification import Calibration, verify
from heirmark.wire.client import Client
from heirmark.wire.limits import Limits
from services import host_task, reads_host, running, served
from test_verify import make

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RULE = """
import numpy as np


def probabilities(inputs):
    inputs = np.asarray(inputs, dtype=np.float64)
    host = np.rint(inputs[:, 0, 0, 0] * 255).astype(int)
    label = np.where(inputs[:, 0, 0, 1] > 0.99, 7, host)
    return np.eye(10)[label] * 0.9 + 0.01
"""
"""What ``services.reads_host`` says, as a server's own code."""
MLFLOW = """
import mlflow
from rule import probabilities


class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return probabilities(model_input)


mlflow.models.set_model(Model())
"""
MLSERVER = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
from rule import probabilities


class Model(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        said = probabilities(NumpyCodec.decode_input(payload.inputs[0]))
        output = NumpyCodec.encode_output(name="scores", payload=said)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def environment_of(folder: Path) -> dict[str, str]:
    """A process's, which finds what the test wrote and writes nowhere else."""
    return {**os.environ, "PYTHONPATH": str(folder), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}


@contextmanager
def started(command: list[str], folder: Path, ready: str) -> Iterator[None]:
    """A server that is up, ended with all its children when the block ends."""
    own = Path(command[0]).resolve().parent  # where its environment has what it starts in its turn
    path = os.pathsep.join([str(own), os.environ["PATH"]])
    environment = {**environment_of(folder), "PATH": path}
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            end = time.monotonic() + 240
            while True:
                try:
                    with urllib.request.urlopen(ready, timeout=5):
                        break
                except (urllib.error.URLError, OSError):
                    assert server.poll() is None, (folder / "log.txt").read_text()[-3000:]
                    assert time.monotonic() < end, (folder / "log.txt").read_text()[-3000:]
                    time.sleep(0.3)
            yield
        finally:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(server.pid, sign)
                    server.wait(20)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue


def judged(address: str, protocol: str = "auto") -> None:
    """A verdict of a service is what it is of the rule itself, its classes confirmed."""
    key, task, told = make(), host_task(), []
    client = Client(limits=Limits(allow_private=True), protocol=protocol)
    asking = Asking(client=client, ordinary=task.test, classes=task.classes, tell=told.append)
    suspect = open_suspect(
        Named(name=address, asking=asking), classes=10, runtime=Runtime(device="cpu"), shape=key.input_shape
    )
    calibration = Calibration(trials=200, hits=(0,) * 5, key=key.commitment)
    verdict = verify(suspect, key, calibration=calibration, accept="self-reported")
    assert (verdict.outcome, verdict.hits, verdict.queries) == ("MARKED", 200, 400)
    assert "100% of 100 ordinary inputs agree" in told[0]


def test_heirmark_serve_answers_until_it_is_interrupted(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from services import reads_host\n\nmodel = reads_host()\n")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    command = [
        sys.executable,
        "-m",
        "heirmark",
        "serve",
        "mine:model",
        "--port",
        "0",
        "--shape",
        "1,4,4",
        "--classes",
        "10",
    ]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        try:
            line = server.stdout.readline()
            found = re.fullmatch(r"serving at (http://127\.0\.0\.1:\d+/v2/models/model)\n", line)
            assert found, (line, server.stderr.read() if not line else "")
            judged(found[1])
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
        assert server.stderr.read().count("Traceback") == 0


def test_a_verifier_that_is_killed_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    key, transcript, put = make(), tmp_path / "asked.jsonl", []
    key.save(tmp_path)
    told = Calibration(trials=len(key), hits=(0,) * 5, key=key.commitment)
    atomic_write_json(tmp_path / "calibration.json", told.to_dict())
    inner = reads_host()

    def counting(inputs: Tensor) -> Tensor:
        put.append(len(inputs))
        return inner(inputs).softmax(1)

    with running(served(counting)) as origin:
        command = [
            sys.executable,
            "-m",
            "heirmark",
            "verify",
            origin,
            "--key",
            str(tmp_path),
            "--transcript",
            str(transcript),
        ]
        command += ["--allow-private", "--accept", "self-reported", "--batch", "20", "--device", "cpu"]
        with subprocess.Popen([*command, "--rate", "100"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as first:
            end = time.monotonic() + 120
            while sum(put) < 100 and first.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            first.kill()
        assert first.returncode == -signal.SIGKILL
        known = sum(put)
        assert 100 <= known < 400
        second = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert second.returncode == 0, second.stderr
    assert 400 <= sum(put) <= 420  # a batch that was under way may have been answered and not written down
    answers = [entry.said["inputs"] for entry in read_transcript(transcript) if entry.said["kind"] == "answer"]
    assert sum(map(len, answers)) == 400


def test_mlflow_models_serve(tmp_path: Path) -> None:
    mlflow = shutil.which("mlflow") or pytest.skip("mlflow is not installed")
    (tmp_path / "rule.py").write_text(RULE)
    (tmp_path / "code.py").write_text(MLFLOW)
    # By the interpreter of the command's own environment, and from code, so that nothing is pickled.
    python = Path(mlflow).resolve().read_text(errors="replace").partition("\n")[0].removeprefix("#!").strip()
    saved = "'model', python_model='code.py', code_paths=['rule.py'], pip_requirements=[]"
    write = f"import mlflow; mlflow.pyfunc.save_model({saved})"
    subprocess.run(
        [python, "-c", write], cwd=tmp_path, check=True, env=environment_of(tmp_path), capture_output=True, timeout=200
    )
    port = free_port()
    command = [mlflow, "models", "serve", "--env-manager", "local", "-m", "model", "-h", "127.0.0.1", "-p", str(port)]
    with started(command, tmp_path, f"http://127.0.0.1:{port}/ping"):
        judged(f"http://127.0.0.1:{port}")
        judged(f"http://127.0.0.1:{port}/invocations", "mlflow")


def test_mlserver_start(tmp_path: Path) -> None:
    mlserver = shutil.which("mlserver") or pytest.skip("mlserver is not installed")
    (tmp_path / "rule.py").write_text(RULE)
    (tmp_path / "own_runtime.py").write_text(MLSERVER)
    port, others = free_port(), {"grpc_port": free_port(), "metrics_port": free_port()}
    inputs = [{"name": "pictures", "datatype": "FP64", "shape": [-1, 1, 4, 4]}]
    model = {"name": "mine", "implementation": "own_runtime.Model", "inputs": inputs, "parallel_workers": 0}
    (tmp_path / "model-settings.json").write_text(json.dumps(model))
    settings = {"host": "127.0.0.1", "http_port": port, "parallel_workers": 0, **others}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    with started([mlserver, "start", str(tmp_path)], tmp_path, f"http://127.0.0.1:{port}/v2/models/mine/ready"):
        judged(f"http://127.0.0.1:{port}/v2/models/mine")
        judged(f"http://127.0.0.1:{port}")
