"""Models by name: stored inputs ``[N, C, H, W]``, uint8 or float in [0, 1], to logits; decoding and normalisation are inside.

A name may carry options: ``"naivenet:width=16,batch_norm=true"``. A user's own model is a factory, a callable that maps a
:class:`ModelSpec` to an ``nn.Module``; it is accepted wherever a name is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from heirmark.configuration import Constraint, checked, not_empty, within
from heirmark.configuration.setting import read_text
from heirmark.errors import BadConfig, ShapeMismatch, out_of_memory
from heirmark.models.front import Front, behind, check_front
from heirmark.models.inner import features_of
from heirmark.models.registry import MODELS
from heirmark.querying.layout import copied, fitted, in_channels_last, unwrapped
from heirmark.runtime import seeded

__all__ = [
    "MODELS",
    "Architecture",
    "Factory",
    "HasFeatures",
    "ModelSpec",
    "Net",
    "architecture",
    "build",
    "features_of",
    "specify",
]

CUSTOM = "custom"

Option = bool | int | float
LARGEST = {"vocabulary": 1 << 18, "rate": 384_000}
"""Bounds of options that may exceed 4,096."""
_TAKEN = {
    3: "images of shape (C, H, W) with sides of at least {}",
    2: "waves of shape (C, T) of at least {} samples",
    1: "texts of shape (L,) of at least {} tokens",
}
Size = Annotated[int, within(1, 1 << 20)]


@runtime_checkable
class HasFeatures(Protocol):
    """What a method that looks inside a model needs of it: an extractor and decision layers over it."""

    features: Callable[[Tensor], Tensor]
    head: nn.Module


@dataclass(frozen=True, kw_only=True)
@checked
class ModelSpec:
    """What rebuilds a model: its name, options and the shapes at both ends.

    Attributes:
        name: key of :data:`MODELS`, or ``"custom"`` for a user's own factory, which then has to be given again to load it.
        input_shape: shape of one input, without the batch.
        classes: number of logits.
        options: constructor options by name, sorted.
        front: preprocessing of queries before the model, by name and strength; see :data:`heirmark.models.front.FRONTS`.
        factory: ``module:name`` of a custom model's factory, for people and to tell factories apart; nobody imports it.
        config: of a net of the library transformers; see :mod:`heirmark.models.from_transformers`.
        source: the folder of the weights that such a net starts from.
    """

    name: str
    input_shape: Annotated[tuple[Size, ...], not_empty]
    classes: Annotated[int, within(2, 1 << 20)]
    options: tuple[tuple[str, Option], ...] = ()
    front: Front = ()
    factory: Annotated[str, Constraint("of at most 500 characters", lambda name: len(name) <= 500)] = ""

    config: Annotated[str, Constraint("of at most a million characters", lambda text: len(text) <= 10**6)] = ""
    source: Annotated[str, Constraint("of at most 5000 characters", lambda text: len(text) <= 5000)] = ""

    def __post_init__(self) -> None:
        if self.name != CUSTOM and self.name not in MODELS:
            raise BadConfig(f"unknown model {self.name!r}: choose one of {', '.join(MODELS)}, or give your own factory")
        check_front(self.front, self.input_shape)
        if self.name == CUSTOM:
            return
        kind = MODELS[self.name]
        sides = self.input_shape if kind.dimensions == 1 else self.input_shape[1:]
        if len(self.input_shape) != kind.dimensions or min(sides) < kind.smallest:
            taken = _TAKEN[kind.dimensions].format(kind.smallest)
            raise ShapeMismatch(f"model {self.name!r} takes {taken}, not {self.input_shape}: choose another model")
        if kind.from_folder != bool(self.config):
            raise BadConfig(f"model {self.name!r} is named with the folder that it starts from: {self.name}:FOLDER")
        known = inspect.signature(kind).parameters
        allowed = [name for name, p in known.items() if p.kind is inspect.Parameter.KEYWORD_ONLY and p.default != ""]
        for option, value in self.options:
            if option not in allowed:
                raise BadConfig(f"model {self.name!r} has no option {option!r}: choose from {', '.join(allowed)}")
            wanted = type(known[option].default)
            # The exact type, because a bool is an int to Python, and no width to torch.
            if not (type(value) is wanted or (wanted is float and type(value) is int)):
                raise BadConfig(f"option {option!r} of model {self.name!r} is a {wanted.__name__}, not {value!r}")
            least = 1 if wanted is int else 0
            most = LARGEST.get(option, 4096)
            if not isinstance(value, bool) and not least <= value <= most:
                raise BadConfig(
                    f"option {option!r} of model {self.name!r} must lie between {least} and {most}, not {value!r}"
                )

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the class behind the name, but for where its weights start."""
        return {**dict(self.options), **({"config": self.config} if self.config else {})}

    def build(self, *, seed: int, factory: Factory | None = None) -> nn.Module:
        """A freshly initialised model; the global generator is untouched.

        Args:
            seed: of the initialisation.
            factory: the user's own factory, needed when the name is ``"custom"``.

        Raises:
            BadConfig: when the specification is of a custom model and no factory is given, or the options do not fit.
        """
        if self.name == CUSTOM and factory is None:
            raise BadConfig("this is a custom model: give the factory that builds it (--model package.module:factory)")
        with seeded(seed):
            try:
                if factory is not None:
                    # Lazy layers draw their weights when the model is first asked.
                    model = fitted(unwrapped(factory(self)), self.input_shape)
                else:
                    start = {"source": self.source} if self.source else {}
                    model = MODELS[self.name](self.input_shape, self.classes, **self.arguments, **start)
                    model = in_channels_last(model)
            except (ValueError, RuntimeError) as error:
                if out_of_memory(error):
                    raise
                raise BadConfig(f"model {self.name!r} cannot be built with {dict(self.options)}: {error}") from error
        return behind(model, self.front)


@dataclass(frozen=True, kw_only=True, eq=False)
class Net:
    """A model and what rebuilds it.

    Attributes:
        model: maps stored inputs ``[B, ...]`` to logits ``[B, C]``; in eval mode.
        spec: what rebuilds it; of what ``onnx`` holds, the shapes at both ends.
        onnx: the model as an ONNX file, where it is one that PyTorch does not run (real int8); then this is what is kept.
        stored: types of numbers in which weights lie on disk, by name, where they are not the model's own: of a half-precision
            model, which computes in float32 here and is saved as it came.
    """

    model: nn.Module
    spec: ModelSpec
    onnx: bytes | None = None
    stored: Mapping[str, torch.dtype] = field(default_factory=dict)

    def working_copy(self) -> nn.Module:
        """A copy to work on; of a user's model in the layout that it takes, see :func:`heirmark.querying.layout.fitted`."""
        copy = copied(self.model)
        return fitted(copy, self.spec.input_shape) if self.spec.name == CUSTOM else copy

    def askable(self) -> nn.Module:
        """The model itself, or in place of one of a user's a copy in the layout that it takes, so that it stays as it is."""
        return self.working_copy() if self.spec.name == CUSTOM else self.model


Factory = Callable[[ModelSpec], nn.Module]
Architecture = str | Factory
"""How a model is asked for: a name with options, or a user's factory."""


def code_of(named: Architecture | tuple[Architecture, ...] | None) -> Iterator[type | Factory]:
    """The code that architectures rest on: the class behind a name, or a user's factory; none where there is no such name."""
    if isinstance(named, tuple):
        for each in named:
            yield from code_of(each)
    elif isinstance(named, str):
        name = named.partition(":")[0]
        if name in MODELS:
            yield MODELS[name]
    elif named is not None:
        yield named


def architecture(default: Architecture | tuple[Architecture, ...] | None) -> Any:
    """A field of a frozen dataclass for an architecture or several, whose code counts for what is computed with them.

    Args:
        default: of the field.
    """
    return field(default=default, metadata={"rests_on": code_of})


def architectures_of(config: Any) -> Iterator[Architecture]:
    """The architectures that a configuration names in fields made by :func:`architecture`."""
    for part in fields(config):
        if part.metadata.get("rests_on") is code_of:
            named = getattr(config, part.name)
            yield from named if isinstance(named, tuple) else [named] if named is not None else []


def specify(architecture: Architecture, *, input_shape: tuple[int, ...], classes: int) -> ModelSpec:
    """The specification that an architecture means for a task.

    Args:
        architecture: ``"name"``, ``"name:option=value,..."`` or a factory.
        input_shape: shape of one input.
        classes: number of classes.

    Raises:
        BadConfig: for an unknown name or option.

    Examples:
        >>> specify("naivenet:width=8,batch_norm=true", input_shape=(1, 28, 28), classes=10).options
        (('batch_norm', True), ('width', 8))
    """
    if not isinstance(architecture, str):
        return ModelSpec(name=CUSTOM, input_shape=input_shape, classes=classes, factory=name_of(architecture))
    name, _, text = architecture.partition(":")
    if name in MODELS and MODELS[name].from_folder:
        found = MODELS[name].described(text)
        return ModelSpec(name=name, input_shape=input_shape, classes=classes, config=found.config, source=found.source)
    options: dict[str, Option] = {}
    for item in filter(None, text.split(",")):
        option, equals, value = item.partition("=")
        if not equals:
            raise BadConfig(f"model option {item!r} has no value: write name:option=value")
        options[option.strip()] = read_text(Option, value.strip(), option.strip())
    return ModelSpec(name=name, input_shape=input_shape, classes=classes, options=tuple(sorted(options.items())))


def build(name: str, *, input_shape: tuple[int, ...], classes: int, seed: int = 0, **options: Option) -> nn.Module:
    """Build a model by name, as ``build("resnet18", input_shape=(3, 32, 32), classes=10, width=16)``.

    Raises:
        BadConfig: for an unknown name or option.
        ShapeMismatch: for inputs that the model cannot take.
    """
    spec = ModelSpec(name=name, input_shape=input_shape, classes=classes, options=tuple(sorted(options.items())))
    return spec.build(seed=seed)


def fresh_net(architecture: Architecture, *, input_shape: tuple[int, ...], classes: int, seed: int) -> Net:
    """A model that has learned nothing yet, whose mode is torch's; the global generators are untouched.

    Layers that a user's factory freezes stay frozen if it brings their weights. Where it draws them at random, they are there to
    be loaded, and what is to learn from nothing learns them, too.

    Raises:
        BadConfig: see :func:`specify`.
    """
    spec, factory = specify(architecture, input_shape=input_shape, classes=classes), factory_of(architecture)
    model = spec.build(seed=seed, factory=factory)
    frozen = {name: weight for name, weight in model.named_parameters() if not weight.requires_grad}
    if frozen:
        others = dict(spec.build(seed=seed + 1 if seed == 0 else seed - 1, factory=factory).named_parameters())
        if not all(torch.equal(weight, others[name]) for name, weight in frozen.items()):
            for weight in frozen.values():
                weight.requires_grad_(True)
    return Net(model=model, spec=spec)


def name_of(factory: Factory) -> str:
    """``module:name`` of a user's factory, as far as it has one."""
    return f"{getattr(factory, '__module__', '')}:{getattr(factory, '__qualname__', type(factory).__qualname__)}"


def factory_of(architecture: Architecture) -> Factory | None:
    """The user's factory, or None for a built-in name."""
    return None if isinstance(architecture, str) else architecture
