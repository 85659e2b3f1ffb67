import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from heirmark.errors import BadConfig, BudgetExhausted, ShapeMismatch
from heirmark.querying.blackbox import Api, BlackBox, QueryRecord
from heirmark.querying.oracle import ModelFault
from heirmark.runtime import Runtime

RUNTIME = Runtime(device="cpu", precision="float32")


def net(classes=6):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, classes)
        )


def images(count=9):
    return torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(1))


def box(model=None, **options):
    own = {name: options.pop(name) for name in ("classes", "input_shape", "runtime") if name in options}
    return BlackBox(model or net(), api=Api(**options), **{"classes": 6, "runtime": RUNTIME} | own)


def test_a_module_answers_in_eval_mode_and_keeps_its_own():
    model = net().train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    black_box = box(model)
    answers = black_box.query(images())
    assert answers.kind == "probabilities"
    assert torch.equal(answers.probabilities, black_box.query(images()).probabilities)  # no dropout
    assert model.training
    assert not model[1].training
    assert model[2].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        logits = model.eval()(images())
    torch.testing.assert_close(answers.probabilities, logits.softmax(1))
    assert torch.equal(answers.labels, logits.argmax(1))
    assert answers.labels.dtype == torch.int64


def test_bytes_and_floats_of_one_image_get_one_answer():
    pixels = (images() * 255).round().to(torch.uint8)
    black_box = box()
    assert torch.equal(black_box.query(pixels).probabilities, black_box.query(pixels / 255).probabilities)


def test_labels_come_alone():
    answers = box(answers="label").query(images())
    assert answers.kind == "label"
    assert answers.probabilities is None
    assert torch.equal(answers.labels, box().query(images()).labels)


@given(k=st.integers(1, 6), decimals=st.one_of(st.none(), st.integers(0, 7)))
def test_top_k_keeps_the_largest_then_rounds(k, decimals):
    full = box().query(images()).probabilities
    shown = box(answers="top-k", k=k, decimals=decimals).query(images()).probabilities
    # The slow reference, one row at a time.
    for whole, part in zip(full.tolist(), shown.tolist(), strict=True):
        top = sorted(whole, reverse=True)[:k]
        expected = [p if p in top else 0.0 for p in whole]
        if decimals is not None:
            expected = [round(p, decimals) for p in expected]
        assert part == pytest.approx(expected, abs=1e-7)


@given(levels=st.sampled_from([3, 4, 11, 256, 1000, 10**7]), k=st.integers(1, 6))
def test_levels_are_multiples_of_a_step(levels, k):
    full = box(answers="top-k", k=k).query(images()).probabilities
    shown = box(answers="top-k", k=k, levels=levels).query(images()).probabilities
    for whole, part in zip(full.flatten().tolist(), shown.flatten().tolist(), strict=True):
        steps = part * (levels - 1)
        assert steps == pytest.approx(round(steps), abs=1e-7 * levels)
        assert abs(part - whole) <= 0.5 / (levels - 1) + 1e-7


def test_two_levels_are_the_hard_label():
    probabilities = torch.tensor([[0.34, 0.36, 0.30], [0.1, 0.1, 0.8]])
    answers = BlackBox(lambda x: probabilities, classes=3, api=Api(levels=2)).query(images(2))
    assert answers.kind == "probabilities"
    assert answers.probabilities.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert answers.labels.tolist() == [1, 2]
    three = BlackBox(lambda x: probabilities, classes=3, api=Api(levels=3)).query(images(2))
    assert three.probabilities.tolist() == [[0.5, 0.5, 0.5], [0, 0, 1]]


def test_queries_are_not_moved_to_the_cpu_where_the_model_is_elsewhere(monkeypatch):
    """Only answers are: on an accelerator a query set that lies there stays there."""
    moved, plain = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: moved.append(tuple(tensor.shape)) or plain(tensor))
    box().query(images())
    assert moved == [(9, 6)]


def test_rounding_does_not_move_the_label():
    probabilities = torch.tensor([[0.34, 0.36, 0.30]])
    answers = BlackBox(lambda x: probabilities, classes=3, api=Api(decimals=0)).query(images(1))
    assert answers.probabilities.tolist() == [[0, 0, 0]]
    assert answers.labels.tolist() == [1]


def test_a_callable_gets_floats_in_batches_and_gives_probabilities():
    sizes = []

    def answer(inputs):
        assert inputs.dtype == torch.float32
        assert float(inputs.max()) <= 1
        sizes.append(len(inputs))
        return torch.full((len(inputs), 6), 1 / 6, dtype=torch.float64, requires_grad=True)

    answers = box(answer).query((images(2500) * 255).to(torch.uint8))
    assert sizes == [1000, 1000, 500]
    assert answers.probabilities.shape == (2500, 6)
    assert answers.probabilities.dtype == torch.float32
    assert not answers.probabilities.requires_grad


def test_the_budget_holds_and_a_refusal_costs_nothing():
    asked = []

    def answer(inputs):
        asked.append(len(inputs))
        return torch.full((len(inputs), 6), 1 / 6)

    black_box = box(answer, budget=10)
    black_box.query(images(6))
    with pytest.raises(BudgetExhausted, match="5 queries exceed the 4 left of a budget of 10"):
        black_box.query(images(5))
    assert black_box.queries_used == 6
    assert black_box.remaining == 4
    black_box.query(images(4))
    assert black_box.remaining == 0
    with pytest.raises(BudgetExhausted):
        black_box.query(images(1))
    assert asked == [6, 4]
    assert black_box.transcript == (QueryRecord(inputs=6, total=6), QueryRecord(inputs=4, total=10))
    assert box().remaining is None


def test_queries_can_be_asked_for_beforehand():
    black_box = box(budget=10)
    black_box.query(images(6))
    black_box.require(4)
    with pytest.raises(BudgetExhausted) as beforehand:
        black_box.require(5)
    with pytest.raises(BudgetExhausted) as when_asked:
        black_box.query(images(5))
    assert str(beforehand.value) == str(when_asked.value)
    assert (black_box.queries_used, len(black_box.transcript)) == (6, 1)
    box().require(10**12)


def test_no_inputs_cost_nothing():
    black_box = box(budget=0)
    answers = black_box.query(images(0))
    assert answers.probabilities.shape == (0, 6)
    assert answers.labels.shape == (0,)
    assert black_box.queries_used == 0


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.rand(4), "pass a batch"),
        (torch.rand(2, 1, 3, 3), r"\[N, 1, 2, 2\]"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.int64), "convert them to uint8"),
        (torch.full((2, 1, 2, 2), 1.5), "rescale or clamp"),
        (torch.full((2, 1, 2, 2), -0.5), "rescale or clamp"),
        (torch.full((2, 1, 2, 2), float("nan")), "rescale or clamp"),
    ],
)
def test_unusable_inputs_are_refused_before_the_model_sees_them(inputs, message):
    black_box = box(lambda x: pytest.fail("the model was asked"), input_shape=(1, 2, 2))
    with pytest.raises(ShapeMismatch, match=message):
        black_box.query(inputs)
    assert black_box.queries_used == 0


class Broken(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, inputs):
        return self.output(inputs)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: torch.zeros(len(x), 5), r"shape \(9, 5\) instead of \(9, 6\)"),
        (lambda x: torch.zeros(len(x) - 1, 6), r"shape \(8, 6\)"),
        (lambda x: torch.zeros(6), "shape"),
        (lambda x: torch.full((len(x), 6), float("nan")), "NaN or infinite"),
        (lambda x: torch.full((len(x), 6), float("inf")), "NaN or infinite"),
        (lambda x: torch.zeros(len(x), 6, dtype=torch.int64), "int64 values instead of"),
        (lambda x: (torch.zeros(len(x), 6),), "returned tuple instead of"),
        (lambda x: None, "returned NoneType instead of"),
        (lambda x: x @ torch.zeros(99, 6), "RuntimeError"),
        (lambda x: [][0], "IndexError"),
    ],
)
def test_a_broken_model_is_named_as_such_and_nothing_is_charged(output, message):
    for model in (Broken(output), output):
        black_box = box(model)
        with pytest.raises(ModelFault, match=message):
            black_box.query(images())
        assert black_box.queries_used == 0


def test_a_callable_must_not_give_logits():
    with pytest.raises(ModelFault, match="probabilities, not logits"):
        box(lambda x: torch.full((len(x), 6), 3.0)).query(images())


def test_running_out_of_memory_is_not_the_models_fault():
    def answer(inputs):
        raise MemoryError

    with pytest.raises(MemoryError):
        box(answer).query(images())


def test_nor_is_an_accelerator_that_is_full_when_the_answer_is_looked_at():
    class Full(torch.Tensor):
        def isfinite(self):
            raise torch.OutOfMemoryError("CUDA out of memory")

    def answer(inputs):
        return torch.zeros(len(inputs), 6).as_subclass(Full)

    for model in (Broken(answer), answer):
        black_box = box(model)
        with pytest.raises(torch.OutOfMemoryError):
            black_box.query(images())
        assert black_box.queries_used == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answers": "logits"}, r"Api\.answers: expected probabilities\|top-k\|label"),
        ({"classes": 1}, "classes"),
        ({"answers": "top-k", "k": 0}, r"Api\.k: expected int >= 1"),
        ({"answers": "top-k", "k": 7}, "k must"),
        ({"decimals": -1}, "decimals"),
        ({"decimals": 8}, "decimals"),
        ({"levels": 1}, r"Api\.levels: expected"),
        ({"levels": 10**7 + 1}, r"Api\.levels: expected"),
        ({"levels": 4, "decimals": 2}, "give one of them"),
        ({"budget": -1}, "budget"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(BadConfig, match=message):
        box(**options)


def test_the_description_tells_nothing_of_the_model():
    assert repr(box(budget=5)) == "BlackBox(classes=6, answers='probabilities', budget=5, used=0)"


@pytest.mark.gpu
def test_answers_come_back_to_the_cpu():
    answers = BlackBox(net().cuda(), classes=6, runtime=Runtime(device="cuda")).query(images().cuda())
    assert answers.probabilities.device.type == answers.labels.device.type == "cpu"


@pytest.mark.parametrize("shape", [(1, 4, 4), (12,)])
@pytest.mark.parametrize("kind", ["module", "callable"])
def test_a_model_that_works_in_place_does_not_touch_what_it_is_asked(kind, shape):
    class InPlace(nn.Module):
        def forward(self, inputs):
            return inputs.mul_(0.1).flatten(1)[:, :10]

    inputs = torch.rand(5, *shape)
    before = inputs.clone()
    model = InPlace() if kind == "module" else InPlace().forward
    BlackBox(model, classes=10).query(inputs)
    assert torch.equal(inputs, before)


def test_a_box_answers_in_float32_unless_it_is_told_otherwise():
    seen = []

    class Listens(nn.Linear):
        def forward(self, inputs):
            logits = super().forward(inputs)
            seen.append(logits.dtype)
            return logits

    BlackBox(Listens(4, 3), classes=3).query(torch.rand(2, 4))
    BlackBox(Listens(4, 3), classes=3, runtime=Runtime(precision="bfloat16")).query(torch.rand(2, 4))
    assert seen == [torch.float32, torch.bfloat16]
