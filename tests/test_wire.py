"""Suspects over the wire: limits that hold, questions that are counted once, and answers that are read right or refused."""

import asyncio
import contextlib
import ipaddress
import json
import socket
import sys
import threading
import time
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")

from heirmark.errors import BadConfig, BudgetExhausted, HeirmarkWarning  # noqa: E402
from heirmark.jobs.opening import Named, open_suspect  # noqa: E402
from heirmark.jobs.services import Asking  # noqa: E402
from heirmark.querying.blackbox import Api, BlackBox  # noqa: E402
from heirmark.querying.oracle import ModelFault, Oracle  # noqa: E402
from heirmark.querying.transcript import read_transcript  # noqa: E402
from heirmark.runtime import Runtime  # noqa: E402
from heirmark.verification import Calibration, verify  # noqa: E402
from heirmark.wire import calling  # noqa: E402
from heirmark.wire.addresses import is_public, parse_address  # noqa: E402
from heirmark.wire.blotting import blotted, secrets_in  # noqa: E402
from heirmark.wire.client import Client, connect, read_headers  # noqa: E402
from heirmark.wire.dialects.v2 import OpenInference  # noqa: E402
from heirmark.wire.layouts import fit_layout, png  # noqa: E402
from heirmark.wire.limits import Limits  # noqa: E402
from heirmark.wire.rows import Classes, labels_of, row_of, scores_of  # noqa: E402
from heirmark.wire.service import Cover  # noqa: E402
from services import ROOT, inputs_in, made_up, public, reads_host, running, served, v2_service  # noqa: E402
from test_verify import make  # noqa: E402

HERE = Client(limits=Limits(allow_private=True))
MODEL = f"{ROOT}/v2/models/m"
QUICK = Limits(retries=3, wait=0.0)


def images(count, seed=0):
    return torch.randint(0, 10, (count, 1, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def host_scores(inputs):
    return torch.nn.functional.one_hot((inputs[:, 0, 0, 0] * 255).round().long(), 10).float()


@pytest.fixture(autouse=True)
def found_names(monkeypatch):
    monkeypatch.setattr(calling, "_look_up", public)


def to(transport, limits=QUICK, address=MODEL, **more):
    service = connect(
        address,
        Client(
            limits=limits,
            **{name: more.pop(name) for name in ("transcript", "cover", "output", "order", "protocol") if name in more},
        ),
        shape=(1, 4, 4),
        reading=more.pop("reading", Classes(classes=10)),
        transport=transport,
        **more,
    )
    service.sleep = lambda seconds: None
    return service


# ---------------------------------------------------------------- over real sockets


def test_a_verdict_over_a_real_socket_is_that_of_the_model_itself():
    key, calibration = make(), Calibration(trials=200, hits=(0,) * 5, key=make().commitment)
    with running(served(reads_host())) as origin:
        for address in (f"{origin}/v2/models/mine", origin):
            suspect = open_suspect(
                Named(name=address, asking=Asking(client=HERE)),
                classes=10,
                runtime=Runtime(device="cpu"),
                shape=key.input_shape,
            )
            verdict = verify(suspect, key, calibration=calibration, accept="self-reported")
            assert (verdict.outcome, verdict.hits, verdict.queries) == ("MARKED", 200, 400)
            assert suspect.kind == "service"


@pytest.mark.parametrize("answers", ["probabilities", "top-k", "label"])
def test_what_is_served_is_what_a_black_box_shows(answers):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 10))
    inputs, api = torch.rand(70, 1, 4, 4), Api(answers=answers, k=3)
    shown = BlackBox(model, classes=10, api=api).query(inputs)
    with running(served(model, api=api)) as origin:
        service = connect(origin, HERE, shape=(1, 4, 4), reading=Classes(classes=10))
        assert isinstance(service, Oracle)
        assert torch.equal(service.labels(inputs), shown.labels)
        again = BlackBox(service, classes=10, api=api).query(inputs)
        assert torch.equal(again.labels, shown.labels)
        if shown.probabilities is not None:
            assert torch.equal(again.probabilities, shown.probabilities)
    assert service.asked == service.shown == 140


def test_a_service_tells_what_is_wrong_with_a_question():
    with running(served(reads_host(), api=Api(budget=3))) as origin, httpx.Client(trust_env=False) as client:
        path = f"{origin}/v2/models/mine"
        ready = [client.get(f"{origin}/v2/health/{part}").status_code for part in ("live", "ready")]
        assert [*ready, client.get(f"{path}/ready").status_code, client.get(f"{origin}/v2").status_code] == [200] * 4
        assert client.get(path).json()["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 1, 4, 4]}]

        def ask(body, at=path):
            return client.post(f"{at}/infer", content=body if isinstance(body, bytes) else json.dumps(body).encode())

        whole = {"inputs": [{"name": "input", "shape": [2, 1, 4, 4], "datatype": "FP32", "data": [0.0] * 32}]}
        said = ask({**whole, "id": "7"}).json()
        assert (said["id"], said["outputs"][0]["shape"]) == ("7", [2, 10])
        assert ask(whole, f"{path}/versions/1").status_code == 403  # its budget
        assert ask(whole, f"{origin}/v2/models/other").status_code == 404
        for wrong in (b"[" * 100_000, b"{}", {"inputs": []}, {"inputs": [{"shape": [2, 1, 4, 4]}]}):
            assert ask(wrong).status_code == 400
        one = whole["inputs"][0]
        for change in (
            {"datatype": "BYTES"},
            {"shape": [2, 16, -1]},
            {"shape": [3, 1, 4, 4]},
            {"data": ["a"] * 32},
            {"data": [7] * 32},
        ):
            assert ask({"inputs": [one | change]}).status_code == 400, change


def test_a_service_that_drips_is_given_up_in_time_even_while_it_sends_its_headers():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = threading.Event()

        def drip():
            with listening.accept()[0] as connection:
                for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 10_000:
                    if ended.wait(0.02):
                        return
                    connection.send(bytes([byte]))

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        limits = Limits(allow_private=True, call_seconds=0.3, retries=0)
        began = time.monotonic()
        with pytest.raises(ModelFault, match=r"within 0\.3 seconds"):
            to(None, limits, f"http://127.0.0.1:{listening.getsockname()[1]}/v2/models/m")
        assert time.monotonic() - began < 5
        ended.set()
        thread.join(10)


def test_nobody_there_is_said_so():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(ModelFault, match="cannot be reached"):
        to(None, Limits(allow_private=True), f"http://127.0.0.1:{port}/v2/models/m")


@pytest.mark.parametrize("missing", ["httpx", "fastapi"])
def test_what_is_not_installed_is_named(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    extra = {"httpx": "http", "fastapi": "serve"}[missing]
    with pytest.raises(BadConfig, match=rf"pip install \"heirmark\[{extra}\]\""):
        to(None, Limits(allow_private=True), "http://127.0.0.1:1/v2/models/m") if missing == "httpx" else served(
            reads_host()
        )


# ---------------------------------------------------------------- whom a client talks to


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/",
        "http://[::1]/",
        "https://10.0.0.7/",
        "http://169.254.169.254/latest",
        "http://[::ffff:127.0.0.1]/",
    ],
)
def test_private_addresses_need_a_word(address):
    transport = made_up(v2_service(host_scores))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HeirmarkWarning)
        with pytest.raises(BadConfig, match="--allow-private"):
            to(transport, address=address)


def test_a_name_behind_which_a_private_address_is_needs_one_too(monkeypatch):
    async def both(host, port):
        return [ipaddress.ip_address("93.184.216.34"), ipaddress.ip_address("192.168.0.1")]

    monkeypatch.setattr(calling, "_look_up", both)
    with pytest.raises(BadConfig, match=r"192\.168\.0\.1"):
        to(made_up(v2_service(host_scores)))


def test_the_number_that_was_checked_is_the_one_that_is_talked_to():
    seen = []

    def handle(request):
        seen.append((request.url.host, request.headers["host"], request.extensions["sni_hostname"]))
        return httpx.Response(404)

    with pytest.raises(BadConfig):
        to(httpx.MockTransport(handle))
    assert set(seen) == {("93.184.216.34", "models.example", "models.example")}


@given(st.ip_addresses())
def test_what_wraps_a_private_number_is_private(ip):
    if ip.version == 4:
        wrapped = [ipaddress.ip_address(f"::ffff:{ip}"), ipaddress.ip_address((0x64FF9B << 96) + int(ip))]
        assert all(is_public(each) == is_public(ip) for each in wrapped)
    if not ip.is_global:
        assert not is_public(ip) or getattr(ip, "sixtofour", None) or getattr(ip, "teredo", None)


@pytest.mark.parametrize(
    "text",
    [
        "ftp://a/",
        "http://",
        "https://user:word@a.example/",
        "http://a/#b",
        "http://a:99999/",
        "http://a b/",
        "http://[::1/",
    ],
)
def test_addresses_that_are_none(text):
    with pytest.raises(BadConfig):
        parse_address(text)


def test_the_query_of_an_address_is_asked_and_neither_written_down_nor_told(tmp_path):
    file, paths = tmp_path / "asked.jsonl", []

    def answer(path, asked):
        return [[1.0] + [0.0] * 9] * len(asked["x"])

    def handle(request):
        paths.append(request.url.query)
        return httpx.Response(200, json=answer(request.url.path, json.loads(request.content)))

    template = tmp_path / "own.json"
    template.write_text(json.dumps({"request": {"x": "$inputs"}, "answers": ""}))
    own = {"protocol": str(template), "transcript": file}
    service = to(httpx.MockTransport(handle), address=f"{ROOT}/m?api_key=one", **own)
    service.labels(images(3))
    service.transcript.close()
    assert set(paths) == {b"api_key=one"}
    assert "api_key" not in file.read_text()
    assert read_transcript(file)[0].said["address"] == f"{ROOT}/m?..."
    again = to(httpx.MockTransport(handle), address=f"{ROOT}/m?api_key=one", **own)
    again.labels(images(3))
    again.transcript.close()
    assert len(paths) == 1
    with pytest.raises(BadConfig, match=r"something else \(seal\)"):
        to(httpx.MockTransport(handle), address=f"{ROOT}/m?api_key=two", **own)
    failing = httpx.MockTransport(lambda request: httpx.Response(401))
    with pytest.raises(ModelFault, match=r"/m\?\.\.\. answers 401") as fault:
        to(failing, address=f"{ROOT}/m?api_key=one", protocol=str(template)).rows(images(1))
    assert "api_key" not in str(fault.value)


def test_a_redirect_is_told_without_a_secret():
    to_where = "https://me:word@other.example/m?api_key=one"
    moved = httpx.MockTransport(lambda request: httpx.Response(307, headers={"Location": to_where}))
    with pytest.raises(ModelFault, match=r"redirects to https://other\.example/m\?\.\.\.: name"):
        to(moved)


def test_redirects_are_followed_on_request_alone_and_take_no_secret_along():
    seen = []
    real = v2_service(host_scores)

    def handle(request):
        seen.append((request.headers["host"], request.headers.get("x-key")))
        if request.headers["host"] == "models.example":
            return httpx.Response(307, headers={"Location": f"https://other.example{request.url.path}"})
        return httpx.Response(
            200, json=real(request.url.path, json.loads(request.content) if request.content else None)
        )

    transport = httpx.MockTransport(handle)
    with pytest.raises(ModelFault, match=r"redirects to https://other\.example.*--allow-redirects"):
        to(transport)
    seen.clear()
    client = Client(limits=replace(QUICK, allow_redirects=True), headers={"X-Key": "secret"})
    service = connect(MODEL, client, shape=(1, 4, 4), reading=Classes(classes=10), transport=transport)
    assert torch.equal(service.labels(images(5)), images(5)[:, 0, 0, 0].long())
    assert set(seen) == {("models.example", "secret"), ("other.example", None)}


@pytest.mark.parametrize("location", ["http://other.example/", "https://127.0.0.1/", "ftp://x/", "", "//["])
def test_redirects_that_lead_astray_are_not_followed(location):
    def answer(path, asked):
        return httpx.Response(307, headers={"Location": location})

    with pytest.raises(ModelFault, match="redirects"):
        to(made_up(answer), replace(QUICK, allow_redirects=True))


def test_a_redirect_that_drops_the_question_is_none():
    real = v2_service(host_scores)
    answer = made_up(
        lambda path, asked: real(path, asked) if asked is None else httpx.Response(302, headers={"Location": "/x"})
    )
    with pytest.raises(ModelFault, match="drops the question"):
        to(answer, replace(QUICK, allow_redirects=True)).rows(images(2))


def test_plain_http_to_the_world_is_told():
    with pytest.warns(HeirmarkWarning, match="not encrypted"):
        to(made_up(v2_service(host_scores)), address=MODEL.replace("https", "http"))


SECRET = "sk-" + "0123456789abcdef" * 3


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(401, text=f"{'no ' * 90}such key: {SECRET}"),
        httpx.Response(401, json={"error": f"Bearer {SECRET} is spent"}),
        httpx.Response(307, headers={"Location": f"/login/{SECRET}/{'x' * 200}"}),
        httpx.Response(200, json={"outputs": [{"name": SECRET, "shape": [4, 3], "data": [0] * 12}]}),
        httpx.Response(200, content=json.dumps({"outputs": [{"name": "y", "shape": [4], "data": [SECRET] * 4}]})
                       .replace("s", "\\u0073")),
    ],
)  # fmt: skip
def test_what_a_service_repeats_of_a_secret_is_shown_and_written_nowhere(answer, tmp_path):
    service = connect(
        MODEL,
        Client(limits=QUICK, headers={"Authorization": f"Bearer {SECRET}"}, transcript=tmp_path / "lines"),
        shape=(1, 4, 4),
        reading=Classes(classes=10),
        transport=flaky(v2_service(host_scores), {0: answer}),
    )
    service.sleep = lambda seconds: None
    with pytest.raises(ModelFault) as fault:
        service.labels(images(4))
    for shown in (str(fault.value), (tmp_path / "lines").read_text()):
        assert "sk-" not in shown
        assert "0123456789" not in shown


def test_what_went_wrong_on_the_way_tells_no_secret():
    def broken(request):
        raise httpx.LocalProtocolError(f"Illegal header value b'Bearer {SECRET * 9} '")

    client = Client(limits=replace(QUICK, retries=0), headers={"X-Key": f"{SECRET * 9} "}, protocol="v2")
    with pytest.raises(ModelFault, match="LocalProtocolError") as fault:
        connect(MODEL, client, shape=(1, 4, 4), reading=Classes(classes=10), transport=httpx.MockTransport(broken))
    assert "sk-" not in str(fault.value)


@given(st.recursive(st.text("abc123", max_size=12) | st.floats(allow_nan=False) | st.none(), st.lists, max_leaves=8),
       st.text("abc123", min_size=6, max_size=9))  # fmt: skip
def test_nothing_is_left_of_a_secret_and_nothing_else_is_changed(said, secret):
    address = parse_address("http://a.example/m")
    found = blotted({"x": said}, secrets_in({"X-Key": secret}, address))
    assert secret not in json.dumps(found)
    if secret not in json.dumps(said):
        assert found == {"x": said}


def test_headers_take_secrets_from_the_environment():
    assert read_headers(["Authorization: Bearer $T"], {"T": "x"}) == {"Authorization": "Bearer x"}
    assert "secret" not in repr(Client(headers={"A": "secret"}))
    for wrong in ("Authorization", "Host: a", "A: $MISSING", "A b: c"):
        with pytest.raises(BadConfig):
            read_headers([wrong], {})


def test_a_service_is_asked_where_a_loop_is_running_too():
    async def within():
        return to(made_up(v2_service(host_scores))).labels(images(3))

    assert torch.equal(asyncio.run(within()), images(3)[:, 0, 0, 0].long())


# ---------------------------------------------------------------- limits, counting, going on


def flaky(answers, failing):
    """A service of which the calls in ``failing``, by number, end as they say."""
    counter = iter(range(10**6))

    def answer(path, asked):
        if asked is None:
            return answers(path, asked)
        failed = failing.get(next(counter))
        if isinstance(failed, Exception):
            raise failed
        return answers(path, asked) if failed is None else failed

    return made_up(answer)


def test_what_fails_in_passing_is_repeated_and_counted_once():
    failing = {
        0: httpx.Response(503, headers={"Retry-After": "7"}),
        1: httpx.ReadError("gone"),
        2: httpx.Response(429),
        5: httpx.ConnectError("no"),
        6: httpx.Response(500, text="\x1b[31moops"),
    }
    service = to(flaky(v2_service(host_scores), failing), replace(QUICK, batch=4, price=1.0, wait=1.0))
    waits = []
    service.sleep = waits.append
    assert torch.equal(service.labels(images(12)), images(12)[:, 0, 0, 0].long())
    assert (service.asked, service.shown) == (12, 32)
    assert waits == [7.0, 2.0, 4.0, 1.0, 2.0]
    assert (
        service.cost == 12 + 4 + 4
    )  # a broken connection and a 500 may be billed; refused and unreached calls are not


def test_what_fails_for_good_is_not_repeated_and_said_on_one_line():
    service = to(flaky(v2_service(host_scores), {0: httpx.Response(400, text="bad\x1b]\nthing")}))
    with pytest.raises(ModelFault, match="answers 400") as caught:
        service.rows(images(4))
    assert service.shown == 4
    assert str(caught.value).isprintable()


def test_after_a_failure_the_same_service_goes_on_where_it_ended():
    failing = {number: httpx.Response(500) for number in range(2, 6)}
    service = to(flaky(v2_service(host_scores), failing), replace(QUICK, batch=4))
    with pytest.raises(ModelFault):
        service.labels(images(12))
    assert (service.asked, service.shown) == (8, 24)
    assert torch.equal(service.labels(images(12)), images(12)[:, 0, 0, 0].long())
    assert (service.asked, service.shown) == (12, 28)


class Killed(BaseException):
    """As by a signal."""


@pytest.mark.parametrize("call", range(4))
def test_after_a_kill_a_transcript_is_gone_on_with_and_nothing_is_put_twice(tmp_path, call):
    put = []

    def counting(inputs):
        put.extend(inputs[:, 0].flatten(1).tolist())
        return host_scores(inputs)

    file, inputs = tmp_path / "asked.jsonl", images(16)
    inputs[9] = inputs[2]  # the same question twice has two answers
    limits = replace(QUICK, batch=4, price=0.5)
    service = to(flaky(v2_service(counting), {}), limits, transcript=file)
    real, count = service.send, iter(range(99))

    def dying(asked):
        answer = real(asked)
        if next(count) == call:
            raise Killed
        return answer

    service.send = dying
    with pytest.raises(Killed):
        service.labels(inputs)
    service.transcript.close()
    again = to(flaky(v2_service(counting), {}), limits, transcript=file)
    assert torch.equal(again.labels(inputs), inputs[:, 0, 0, 0].long())
    assert again.asked == 16
    assert again.cost == (16 + 4) / 2  # the batch that was not answered may have been billed
    assert len(put) == 20
    again.transcript.close()
    third = to(flaky(v2_service(counting), {}), limits, transcript=file)
    assert torch.equal(third.labels(inputs), inputs[:, 0, 0, 0].long())
    assert (len(put), third.shown) == (20, 0)
    entries = [entry.said["kind"] for entry in read_transcript(file)]
    assert entries == ["head"] + ["question", "answer"] * call + ["question"] + ["question", "answer"] * (4 - call)


def test_budget_and_cost_are_looked_at_before_anything_is_asked():
    with pytest.raises(BadConfig, match="say its --price"):
        replace(QUICK, max_cost=9.0)
    for limits in (replace(QUICK, queries=9), replace(QUICK, price=0.25, max_cost=2.0)):
        service = to(made_up(v2_service(host_scores)), limits)
        with pytest.raises(BudgetExhausted):
            service.rows(images(10))
        assert service.shown == 0
        service.rows(images(8))
        assert service.asked == 8


def test_repetitions_do_not_pass_the_cap_either():
    service = to(
        flaky(v2_service(host_scores), {0: httpx.Response(500), 1: httpx.Response(500)}),
        replace(QUICK, price=1.0, max_cost=9.0),
    )
    with pytest.raises(BudgetExhausted, match=r"[48] was spent"):
        service.rows(images(4))
    assert service.cost <= 9


def test_pace_and_the_time_in_all():
    now = [0.0]
    service = to(made_up(v2_service(host_scores)), replace(QUICK, batch=4, rate=2.0, total_seconds=7.0))
    service.clock = lambda: now[0]
    service.sleep = lambda seconds: now.__setitem__(0, now[0] + seconds)
    with pytest.raises(BudgetExhausted, match="7 seconds"):
        service.rows(images(40))
    assert service.asked == 16  # at 0, 2, 4 and 6 seconds


def test_questions_are_hidden_among_others():
    seen = []

    def noting(inputs):
        seen.append(inputs)
        return host_scores(inputs)

    inputs, cover = images(40), torch.full((7, 1, 4, 4), 200, dtype=torch.uint8)
    service = to(
        made_up(v2_service(lambda values: noting(values)[:, :10])),
        replace(QUICK, batch=16),
        cover=Cover(inputs=images(50, 1), share=1.0),
    )
    assert torch.equal(service.labels(inputs), inputs[:, 0, 0, 0].long())
    put = torch.cat(seen)
    assert 70 <= len(put) == service.asked <= 90
    assert max(map(len, seen)) <= 17
    own = {tuple(row) for row in inputs.flatten(1).tolist()}
    places = [
        place
        for batch in seen
        for place, row in enumerate((batch * 255).round().long().flatten(1).tolist())
        if tuple(row) in own
    ]
    assert len(set(places)) > 8  # not the first half of each call
    assert len(cover)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(200, text="{}"), "no outputs"),
        (httpx.Response(200, text="[" * 1500), "strict JSON"),
        (httpx.Response(200, text='{"outputs": [{"name": "y", "shape": [4, 10], "data": [NaN]}]}'), "strict JSON"),
        (httpx.Response(200, text='{"outputs": [], "outputs": []}'), "strict JSON"),
        (httpx.Response(200, json={"outputs": [{"name": "y", "shape": [4, 10], "data": [1.0]}]}), "1 numbers"),
        (
            httpx.Response(200, json={"outputs": [{"name": "y", "shape": [3, 10], "data": [0.0] * 30}]}),
            r"\[3, 10\] to 4",
        ),
        (httpx.Response(200, json={"outputs": [{"name": "y", "shape": [4, 9], "data": [0.0] * 36}]}), "9 scores"),
        (
            httpx.Response(200, json={"outputs": [{"name": "y", "shape": [4, 10], "data": ["a"] * 40}]}),
            "number is expected",
        ),
        (httpx.Response(200, json={"outputs": [{"name": "y", "shape": [4], "data": [0, 1, 2, 10]}]}), "class 10"),
        (
            httpx.Response(200, json={"outputs": [{"name": "y", "shape": [4], "data": [0, 1, 2, 0.5]}]}),
            "neither scores nor a label",
        ),
        (httpx.Response(200, json={"outputs": [{"name": "y", "shape": [4], "data": ["a"] * 4}]}), "calls a class 'a'"),
        (httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=b""), "packs"),
        (httpx.Response(200, content=b"1" * 3000), "more than 2,000 bytes"),
    ],
)
def test_answers_that_mean_nothing_are_the_services_failing(answer, words):
    service = to(flaky(v2_service(host_scores), {0: answer}), replace(QUICK, max_bytes=2000))
    with pytest.raises(ModelFault, match=words):
        service.labels(images(4))


# ---------------------------------------------------------------- layouts, rows


@pytest.mark.parametrize(
    ("described", "shape"),
    [
        ({"shape": [-1, 4, 4, 1]}, (4, 4, 1)),
        ({"shape": [-1, 16]}, (16,)),
        ({"shape": [-1, 4, 4]}, (4, 4)),
        ({"datatype": "UINT8"}, (1, 4, 4)),
    ],
)
def test_inputs_are_laid_as_the_service_says(described, shape):
    seen = []

    def noting(inputs):
        seen.append(inputs)
        return host_scores(inputs.reshape(-1, 1, 4, 4) / (255 if "datatype" in described else 1))

    service = to(made_up(v2_service(noting, **described)))
    assert torch.equal(service.labels(images(6)), images(6)[:, 0, 0, 0].long())
    assert tuple(seen[0].shape) == (6, *shape)


def test_layouts_that_do_not_fit_are_refused():
    assert fit_layout((3, 8, 8), claimed=(8, 8, 3)).permuted
    assert fit_layout((3, 8, 8), order="channels-last").shape == (8, 8, 3)
    for described in ({"shape": [-1, 3, 4, 4]}, {"datatype": "BYTES"}):
        with pytest.raises(BadConfig):
            to(made_up(v2_service(host_scores, **described)))


@given(st.integers(0, 2**31), st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9))
def test_a_picture_loses_nothing(seed, channels, height, width):
    import io

    from PIL import Image

    image = torch.randint(
        0, 256, (channels, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    with Image.open(io.BytesIO(png(image))) as picture:
        pixels = torch.tensor(
            list(picture.get_flattened_data() if hasattr(picture, "get_flattened_data") else picture.getdata())
        )
    assert torch.equal(pixels.reshape(height, width, channels).permute(2, 0, 1), image.long())


SCORES = st.lists(st.floats(0, 1), min_size=4, max_size=4)


@given(st.lists(st.one_of(SCORES, st.integers(0, 3)), max_size=6), st.permutations(range(4)))
def test_labels_are_the_largest_scores_under_every_order(said, order):
    reading = Classes(classes=4, order=tuple(order))
    rows = [row_of(each) for each in said]
    labels, scores = labels_of(rows, reading), scores_of(rows, reading)
    for row, label, score in zip(rows, labels.tolist(), scores, strict=True):
        assert score[label] == score.max()
        assert row == order.index(label) if isinstance(row, int) else score[label] == torch.tensor(max(row))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.just(10**400) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["label", "score", "a"]), inner, max_size=3)
    ),
)


@given(JSON)
def test_any_answer_at_all_is_read_or_refused(said):
    reading = Classes(classes=3)
    try:
        label = labels_of([row_of(said)], reading)
    except ModelFault:
        return
    assert -1 <= int(label) < 3


@settings(max_examples=50)
@given(JSON, st.lists(st.integers(0, 3), max_size=3))
def test_any_tensor_at_all_is_read_or_refused(data, shape):
    dialect = OpenInference(path="/v2/models/m", input="x", layout=fit_layout((1, 4, 4)))
    for answer in (data, {"outputs": data}, {"outputs": [{"name": "y", "shape": shape, "data": data}]}):
        with contextlib.suppress(ModelFault):
            assert len(dialect.rows(answer, 2)) == 2


def test_ranked_names_and_tops():
    reading = Classes(classes=3, names={"cat": 2, "dog": 0, "other": -1})
    rows = [
        row_of([{"label": "cat", "score": 0.7}, {"label": "dog", "score": 0.2}]),
        row_of("other"),
        row_of({"dog": 1, "new": 2}),
    ]
    assert labels_of(rows, reading).tolist() == [2, -1, -1]
    assert torch.allclose(scores_of(rows, reading)[0], torch.tensor([0.2, 0.0, 0.7]))
    assert inputs_in({"data": [1], "shape": [1]}).tolist() == [1]
