"""Hostile ONNX files: graphs that loop, swell, crash, lie or say nothing of use, and sound ones with damaged bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from hostile_files import CLASSES, damaged

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node
SIZES = ((-1, -1), (0,), (2**40, -1))
WAYS = ("constant", "tile", "expand", "pad", "range")


def model(
    *nodes: Any, weights: Any = (), batch: object = "N", out: Any = ("N", CLASSES), kind: int = FLOAT, **more: Any
) -> Any:
    """An ONNX file that takes ``x [B, 1, 4, 4]`` and says ``y``."""
    said = helper.make_tensor_value_info("y", kind, None if out is None else list(out))
    taken = helper.make_tensor_value_info("x", more.pop("given", FLOAT), [batch, 1, 4, 4])
    graph = helper.make_graph(list(nodes), "g", [taken, *more.pop("inputs", [])], [said], list(weights))
    opsets = more.pop("opsets", [helper.make_opsetid("", 17)])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)


def ints(name: str, *values: int) -> Any:
    """A constant."""
    return helper.make_tensor(name, INT, [len(values)], values)


def sound(rng: random.Random) -> ModelProto:
    """One that answers by random weights."""
    weights = np.random.default_rng(rng.randrange(2**31)).standard_normal((16, CLASSES)).astype(np.float32)
    return model(
        node("Flatten", ["x"], ["flat"]),
        node("MatMul", ["flat", "w"], ["y"]),
        weights=[numpy_helper.from_array(weights, "w")],
    )


def loop(rounds: int, *, growing: bool) -> ModelProto:
    """A loop, whose value doubles in size each time or stays."""
    step = node("Concat", ["a", "a"], ["b"], axis=1) if growing else node("Add", ["a", "a"], ["b"])
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), step],
        "body",
        [
            helper.make_tensor_value_info("i", INT, []),
            helper.make_tensor_value_info("go", BOOL, []),
            helper.make_tensor_value_info("a", FLOAT, None),
        ],
        [helper.make_tensor_value_info("on", BOOL, []), helper.make_tensor_value_info("b", FLOAT, None)],
    )
    weights = [helper.make_tensor("rounds", INT, [], [rounds]), helper.make_tensor("yes", BOOL, [], [True])]
    return model(
        node("Flatten", ["x"], ["flat"]), node("Loop", ["rounds", "yes", "flat"], ["y"], body=body), weights=weights
    )


def swelling(how: str, count: int) -> ModelProto:
    """A small file that makes many numbers, of what it is given, or of constants while it is loaded."""
    makers = {
        "constant": [node("ConstantOfShape", ["many"], ["large"])],
        "tile": [node("Reshape", ["x", "flat"], ["row"]), node("Tile", ["row", "many"], ["large"])],
        "expand": [node("ReduceSum", ["x"], ["one"]), node("Expand", ["one", "many4"], ["large"])],
        "pad": [node("Pad", ["x", "pads"], ["large"])],
        "range": [
            node("Squeeze", ["many"], ["end"]),
            node("Range", ["begin", "end", "step"], ["whole"]),
            node("Cast", ["whole"], ["large"], to=FLOAT),
        ],
    }
    weights = [
        ints("many", count),
        ints("many4", count, 1, 1, 1),
        ints("flat", -1),
        ints("pads", 0, 0, 0, 0, 0, 0, 0, count),
        helper.make_tensor("begin", INT, [], [0]),
        helper.make_tensor("step", INT, [], [1]),
    ]
    end = [
        node("ReduceSum", ["large"], ["sum"], keepdims=0),
        node("Flatten", ["x"], ["whole_x"]),
        node("Add", ["whole_x", "sum"], ["y"]),
    ]
    return model(*makers[how], *end, weights=weights)


def functions(depth: int, calls: int) -> ModelProto:
    """A function that calls another so many times, which calls another: calls ** depth nodes once it is unfolded."""
    made = []
    for level in range(depth):
        inner = ("Identity", "") if level == 0 else (f"f{level - 1}", "mine")
        nodes = [node(inner[0], [f"v{n}"], [f"v{n + 1}"], domain=inner[1]) for n in range(calls)]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
        made.append(helper.make_function("mine", f"f{level}", ["v0"], [f"v{calls}"], nodes, opsets))
    return model(
        node("Flatten", ["x"], ["flat"]),
        node(f"f{depth - 1}", ["flat"], ["y"], domain="mine"),
        opsets=[helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)],
        functions=made,
    )


def multiplying(side: int, times: int) -> ModelProto:
    """Products of large constant matrices, folded while the file is loaded."""
    nodes = [node("ConstantOfShape", ["side"], ["m0"])]
    nodes += [node("MatMul", [f"m{n}", "m0"], [f"m{n + 1}"]) for n in range(times)]
    nodes += [node("ReduceSum", [f"m{times}"], ["sum"], keepdims=0), node("Flatten", ["x"], ["flat"])]
    return model(*nodes, node("Add", ["flat", "sum"], ["y"]), weights=[ints("side", side, side)])


def chain(count: int) -> ModelProto:
    """Very many nodes."""
    nodes = [node("Abs", [f"v{n}"], [f"v{n + 1}"]) for n in range(count)]
    return model(node("Flatten", ["x"], ["v0"]), *nodes, node("Abs", [f"v{count}"], ["y"]))


def odd(rng: random.Random) -> ModelProto:
    """A sound graph that says what is no answer, or a graph that is not sound."""
    flat = node("Flatten", ["x"], ["flat"])
    nan = helper.make_tensor("w", FLOAT, [1], [rng.choice((float("nan"), float("inf"), 1e38))])
    lying = helper.make_tensor("w", FLOAT, [16, CLASSES], np.zeros(16 * CLASSES, np.float32).tobytes(), raw=True)
    lying.dims[0] = rng.choice((0, 1, 17, 2**31, 2**62, -1))
    outside = helper.make_tensor("w", FLOAT, [16, CLASSES], np.zeros(16 * CLASSES, np.float32).tobytes(), raw=True)
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(
        key="location", value=rng.choice(("../../../etc/passwd", "weights.bin", "*/_ORT_MEM_ADDR_/*"))
    )
    times = node("MatMul", ["flat", "w"], ["y"])
    makers: tuple[Callable[[], ModelProto], ...] = (
        lambda: model(flat, node("Mul", ["flat", "w"], ["y"]), weights=[nan]),
        lambda: model(flat, times, weights=[lying]),
        lambda: model(flat, times, weights=[outside]),
        lambda: model(flat, times),
        lambda: model(node("Flatten", ["x"], ["y"]), out=("N", rng.choice((1, 2, 16, 2**40)))),
        lambda: model(node("Flatten", ["x"], ["y"]), batch=rng.choice((1, 3, 1000, 10**6, 2**31, 2**62, 0, -1))),
        lambda: model(flat, node("ArgMax", ["flat"], ["y"], axis=1, keepdims=rng.choice((0, 1))), kind=INT, out=None),
        lambda: model(flat, node("Cast", ["flat"], ["y"], to=TensorProto.STRING), kind=TensorProto.STRING, out=None),
        lambda: model(flat, node("Cast", ["flat"], ["y"], to=BOOL), kind=BOOL, out=None),
        lambda: model(node("ReduceSum", ["x"], ["y"], keepdims=0), out=()),
        lambda: model(node("Transpose", ["x"], ["y"], perm=[3, 2, 1, 0]), out=None),
        lambda: model(flat, node("RandomUniformLike", ["flat"], ["y"]), out=None),
        lambda: model(flat, node("NoSuchOp", ["flat"], ["y"])),
        lambda: model(flat, node("Abs", ["y"], ["z"]), node("Add", ["z", "flat"], ["y"])),
        lambda: model(
            node("Flatten", ["x"], ["y"]), given=rng.choice((INT, BOOL, TensorProto.STRING, TensorProto.DOUBLE))
        ),
        lambda: model(node("Flatten", ["x"], ["y"]), inputs=[helper.make_tensor_value_info("z", FLOAT, [1])]),
        lambda: model(node("Flatten", ["x"], ["y"]), opsets=[helper.make_opsetid("", rng.choice((0, 1, 99)))]),
        lambda: model(node("Flatten", ["x"], ["y"], name="n" * 10**6), out=("N", 16)),
        lambda: model(
            flat, node("Reshape", ["flat", "s"], ["y"]), weights=[ints("s", *rng.choice(((-1, -1), (0,), (2**40, -1))))]
        ),
        lambda: model(
            flat, node("Gather", ["flat", "s"], ["y"], axis=1), weights=[ints("s", rng.choice((-17, 16, 2**40)))]
        ),
        lambda: model(flat, node("SplitToSequence", ["flat"], ["y"]), out=None),
    )
    return rng.choice(makers)()


def hostile(rng: random.Random) -> tuple[str, bytes]:
    """An ONNX file, and what is wrong with it."""
    how = rng.random()
    if how < 0.35:
        what, data = damaged(sound(rng).SerializeToString(), rng)
        return f"damaged: {what}", data
    if how < 0.7:
        return "no answer", odd(rng).SerializeToString()
    makers: tuple[tuple[str, Callable[[], ModelProto]], ...] = (
        ("endless", lambda: loop(2**62, growing=False)),
        ("growing", lambda: loop(rng.choice((40, 60, 2**62)), growing=True)),
        ("swelling", lambda: swelling(rng.choice(WAYS), rng.choice((2 * 10**9, 2**33, 2**62)))),
        ("function bomb", lambda: functions(rng.choice((6, 9)), 10)),
        ("large products", lambda: multiplying(rng.choice((4000, 12_000)), 9)),
        ("long chain", lambda: chain(rng.choice((3000, 30_000)))),
    )  # fmt: skip
    what, make = rng.choice(makers)
    return what, make().SerializeToString()
