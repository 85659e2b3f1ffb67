"""Commands that ask a service over a real socket: judged and stolen, classes matched, questions hidden, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("httpx")
pytest.importorskip("fastapi")

import heirmark.cli
from heirmark.errors import BadConfig
from heirmark.files import atomic_write_json
from heirmark.jobs import services as jobs
from heirmark.jobs.serving import Shown, address_of, is_loopback, listen, open_served
from heirmark.jobs.verify import parse_names
from heirmark.models import fresh_net
from heirmark.models.storage import save_model
from heirmark.querying.asking import predict
from heirmark.querying.blackbox import Api
from heirmark.querying.transcript import read_transcript
from heirmark.runtime import Runtime
from heirmark.verification import Calibration
from services import host_task, reads_host, running, served
from test_verify import WEIGHT, make, onnx_model

CPU = Runtime(device="cpu", precision="float32")
ORDINARY = ["--ordinary", "services:host_task"]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("key")
    made = make(60, kind="tiles")
    made.save(folder)
    told = Calibration(trials=60, hits=(0,) * 5, key=made.commitment)
    atomic_write_json(folder / "calibration.json", told.to_dict())
    return folder


def run(*words: Any) -> Any:
    result = CliRunner().invoke(heirmark.cli.app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def verify(address: str, key: Path, *words: Any) -> Any:
    return run(
        "verify", address, "--key", key, "--allow-private", "--accept", "self-reported", "--device", "cpu", *words
    )


class Renamed(torch.nn.Module):
    """A service that orders its classes otherwise, and has two more."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.order = reads_host(), torch.tensor([3, 0, 9, 1, 2, 8, 4, 7, 5, 6])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.inner(inputs)[:, self.order], torch.zeros(len(inputs), 2)], 1)


def test_verify_asks_a_service_and_confirms_its_classes(key: Path, tmp_path: Path) -> None:
    transcript = tmp_path / "asked.jsonl"
    with running(served(reads_host())) as origin:
        assert verify(origin, key).exit_code == 0
        first = verify(origin, key, *ORDINARY, "--transcript", transcript, "--json")
        again = verify(origin, key, *ORDINARY, "--transcript", transcript, "--json")
        few = verify(origin, key, "--sequential", "--level", "0.001", "--json")
        refused = run("verify", origin, "--key", key)
        unable = verify(origin, key, "--wilcoxon", "0.3")
    assert refused.exit_code == 2
    assert "--allow-private" in refused.stderr
    assert unable.exit_code == 2
    assert "--wilcoxon needs probabilities" in unable.stderr
    assert (first.exit_code, again.exit_code, few.exit_code) == (0, 0, 0)
    assert json.loads(few.stdout)["queries"] < 120
    assert "classes by number: 0 = kind 0; 1 = kind 1;" in first.stderr
    assert "100% of 100 ordinary inputs agree" in first.stderr
    assert "labels alone" not in first.stderr
    with running(served(reads_host(), api=Api(answers="label"))) as origin:
        assert "agree; it gives labels alone" in " ".join(verify(origin, key, *ORDINARY).stderr.split())
    verdict, repeated = json.loads(first.stdout), json.loads(again.stdout)
    assert (verdict["outcome"], verdict["queries"]) == ("MARKED", 120)
    assert repeated["queries"] == 0  # all of it was known
    assert repeated | {"queries": 120} == verdict
    kinds = Counter(entry.said["kind"] for entry in read_transcript(transcript))
    assert kinds == {"head": 1, "question": 8, "answer": 8}


def test_classes_in_another_order_are_found_or_refused(key: Path) -> None:
    with running(served(Renamed(), classes=12)) as origin:
        unsaid = verify(origin, key)
        assert unsaid.exit_code == 1
        assert "12 scores of an input, and 10 are expected" in unsaid.stdout + unsaid.stderr
        found = verify(origin, key, *ORDINARY, "--json")
        assert found.exit_code == 0
        assert "classes by agreement: 0 = kind 3; 1 = kind 0;" in found.stderr
        assert "relabelled" in json.loads(found.stdout)["flags"]
        order = "3,0,9,1,2,8,4,7,5,6,-,-"
        assert verify(origin, key, *ORDINARY, "--labels", order).exit_code == 0
        wrong = verify(origin, key, *ORDINARY, "--labels", order.replace("3,0", "0,3"))
        assert wrong.exit_code == 2
        assert f"--labels {order}" in wrong.stderr


def test_a_suspect_that_is_no_service_has_no_names(key: Path) -> None:
    for labels in ("auto", "cat=1,dog=2"):
        result = run("verify", "services:reads_host", "--key", key, "--labels", labels)
        assert result.exit_code == 2
        assert "is no service" in result.stderr
    for wrong in ("cat", "cat=x", "=1", "a=1,a=2", "a=-1"):
        with pytest.raises(BadConfig):
            parse_names(wrong)


def test_questions_go_among_ordinary_inputs_and_decoys(key: Path) -> None:
    with running(served(reads_host())) as origin:
        result = verify(origin, key, *ORDINARY, "--mix", "1", "--decoys", "0.5", "--json")
        assert result.exit_code == 0, (result.stdout, result.stderr)
        assert 280 <= json.loads(result.stdout)["queries"] <= 320
        none = verify(origin, key, "--mix", "1")
        assert none.exit_code == 2
        assert "--ordinary" in none.stderr


def test_decoys_are_like_a_keys_questions_by_another_secret() -> None:
    task = host_task()
    one, other = (jobs.cover_of("tiles", task, ordinary=0.0, decoys=2.0) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.share == 2.0
    assert one.inputs.shape[1:] == (1, 4, 4)
    assert not torch.equal(one.inputs, other.inputs)
    both = jobs.cover_of("mix", task, ordinary=3.0, decoys=1.0)
    assert both is not None
    assert len(both.inputs) == 1000
    assert jobs.cover_of("tiles", None, ordinary=0.0, decoys=0.0) is None
    with pytest.raises(BadConfig, match="leave --decoys out"):
        jobs.cover_of("random-labels", task, ordinary=0.0, decoys=1.0)


def test_costs_are_capped_before_the_key_is_shown(key: Path) -> None:
    with running(served(reads_host())) as origin:
        result = verify(origin, key, "--price", "0.5", "--max-cost", "50")
    assert result.exit_code == 1
    assert "0 was spent and the next question would pass the 50 allowed" in result.stderr


def test_a_service_that_ends_halfway_gives_no_verdict(key: Path) -> None:
    with running(served(reads_host(), api=Api(budget=64))) as origin:
        result = verify(origin, key, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["outcome"] == "INVALID"
    assert "answers 403" in json.loads(result.stdout)["reason"]


def test_a_thief_steals_over_the_wire_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    def steal(out: str, *words: Any) -> Any:
        quick = ["--set", "recipe.epochs=2", "--set", "recipe.batch_size=16", "--model", "naivenet:width=2,hidden=8"]
        common = ["--allow-private", "--answers", "label", "--device", "cpu", "--precision", "float32", "--json"]
        return run("steal", origin, "--data", "own_code:make_task", "--out", tmp_path / out, *quick, *common, *words)

    from own_code import make_task

    task = make_task()
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 5))
    net[1].weight.data = (
        torch.stack([task.owner.inputs[task.owner.labels == k].float().mean(0).flatten() for k in range(5)]) / 255
    )
    net[1].weight.data -= net[1].weight.data.mean(0)
    net[1].bias.data = -(net[1].weight.data ** 2).sum(1) / 2
    transcript = tmp_path / "asked.jsonl"
    with running(served(net, classes=5, shape=(1, 16, 16))) as origin:
        capped = steal("a", "--transcript", transcript, "--price", "1", "--max-cost", "100")
        assert capped.exit_code == 1
        assert "would pass the 100 allowed" in capped.stderr
        whole = steal("b", "--transcript", transcript)
        assert whole.exit_code == 0
        again = steal("c", "--transcript", transcript)
    facts, repeated = json.loads(whole.stdout), json.loads(again.stdout)
    assert "classes by number: 0 = kind 0" in whole.stderr
    assert (facts["queries"], facts["inputs_put"], repeated["inputs_put"]) == (200, 200, 0)  # 50 of them were known
    weights = [(tmp_path / out / "model.safetensors").read_bytes() for out in ("b", "c")]
    assert weights[0] == weights[1]
    assert json.loads((tmp_path / "b" / "task.json").read_text())["data"] == "own_code:make_task"
    assert run("steal", "http://127.0.0.1:1/", "--out", tmp_path / "d").exit_code == 2  # of what data?


@pytest.mark.parametrize("said", ["labels", "logits", "probabilities"])
def test_what_is_served_may_be_a_function_of_any_kind(said: str) -> None:
    shown = Shown(model=f"test_services:says_{said}", classes=10, shape=(1, 4, 4))
    box = open_served(shown, CPU).box
    task = host_task()
    assert torch.equal(box.query(task.test.inputs).labels, task.test.labels)


@pytest.mark.parametrize("batch", ["N", 1, 64])
def test_an_onnx_file_is_served(tmp_path: Path, batch: Any) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.onnx").write_bytes(onnx_model(WEIGHT, batch=batch))
    inputs = host_task().test.inputs[:70]
    for model in (tmp_path / "model.onnx", tmp_path):
        said = open_served(Shown(model=str(model)), CPU).box.query(inputs)
        scores = (inputs.float() / 255).flatten(1) @ torch.from_numpy(WEIGHT)
        assert torch.equal(said.labels, scores.argmax(1))
        assert said.probabilities is not None
        assert torch.allclose(said.probabilities, scores.softmax(1), atol=1e-5)


def test_a_folder_is_served(tmp_path: Path) -> None:
    net = fresh_net("naivenet:width=2,hidden=8", input_shape=(1, 16, 16), classes=5, seed=0)
    save_model(net, tmp_path)
    served_ = open_served(Shown(model=str(tmp_path), api=Api(answers="label")), CPU)
    inputs = torch.rand(9, 1, 16, 16)
    assert torch.equal(served_.box.query(inputs).labels, predict(net.model, inputs, runtime=CPU).argmax(1))
    assert served_.metadata["outputs"] == [{"name": "label", "datatype": "INT64", "shape": [-1]}]


def says_labels(inputs: torch.Tensor) -> torch.Tensor:
    return reads_host()(inputs).argmax(1)


def says_logits(inputs: torch.Tensor) -> torch.Tensor:
    return reads_host()(inputs)


def says_probabilities(inputs: torch.Tensor) -> torch.Tensor:
    return reads_host()(inputs).softmax(1)


def test_what_cannot_be_served_is_said() -> None:
    shown = Shown(model="test_services:says_labels")
    for wrong, words in (
        (shown, "--classes"),
        (replace(shown, classes=10), "--shape"),
        (replace(shown, name="a/b"), "--name"),
    ):
        with pytest.raises(BadConfig, match=words):
            open_served(wrong, CPU)
    served_ = open_served(replace(shown, classes=10, shape=(1, 4, 4)), CPU)
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert address_of(listening, served_) == f"http://127.0.0.1:{port}/v2/models/model"
        assert is_loopback(listening)
        with pytest.raises(BadConfig, match="--port"):
            listen("127.0.0.1", port)
