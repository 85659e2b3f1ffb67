"""Fit several models of one architecture at once: their weights are stacked, and every kernel works for all of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.overrides import TorchFunctionMode

from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.runtime import Runtime, as_floats, generator_of, sent
from heirmark.training import Mixed, Recipe, Rows, check_finite, draw_moves, move, optimizer_over

__all__ = ["fit_together"]


def fit_together(
    models: Sequence[nn.Module],
    inputs: Tensor,
    targets: Tensor,
    *,
    recipe: Recipe,
    seeds: Sequence[int],
    runtime: Runtime | None = None,
    mixed: Mixed | None = None,
    description: str = "training together",
) -> tuple[tuple[float, ...], ...]:
    """Train models in place, each as :func:`heirmark.training.fit` would with its seed, to rounding.

    The models share data and recipe; initialisation, order of batches and augmentation are each one's own. It can pay where a
    small net leaves most of a GPU idle. A large net fills it alone, and convolutions with stacked weights become grouped ones,
    which are slower: ``benchmarks/training.py`` measures both ways side by side. Four ResNet-18 on an H200 trained as fast
    together as one by one (``results/training_gpu_seeds.json``), before :mod:`heirmark.graphs` made one by one 1.9 times as fast.

    This is a function of the library. The pipeline trains one model a stage, since each is an artifact of its own, and stages run
    side by side instead.

    Args:
        models: S models of one architecture, each maps float32 ``[B, ...]`` in [0, 1] to logits ``[B, C]``; left in eval mode.
            None of them draws random numbers, as dropout does.
        inputs: ``[N, ...]`` uint8 or float32.
        targets: ``[N]`` int64 labels, or ``[N, C]`` float probabilities (soft labels).
        recipe: optimiser, schedule, augmentation.
        seeds: S of them, of the order of batches and the augmentation.
        runtime: device, precision, progress; it is not compiled.
        mixed: samples of which some join every batch; never augmented. With soft labels they are one-hot.
        description: what the progress bar says.

    Returns:
        For every model the mean training loss of every epoch.

    Raises:
        BadConfig: for models that cannot be stacked, or that have to be trained one by one.
        ShapeMismatch: when models, seeds, inputs and targets do not fit each other.
        BadData: when a loss is no longer finite; the models' weights are then as before.
    """
    runtime = runtime or Runtime()
    if not models or len(seeds) != len(models) or len(inputs) == 0 or len(targets) != len(inputs):
        raise ShapeMismatch(
            f"{len(models)} models with {len(seeds)} seeds, {len(inputs)} inputs with {len(targets)} targets: "
            "give one seed a model and one target an input, and some of both"
        )
    _check_alike(models)
    device = runtime.torch_device
    for model in models:
        model.to(device).train()  # the skeleton's and the stack's mode
    # Contiguous whatever the models are: stacked convolutions become grouped ones, which do not keep channels-last.
    parameters, buffers = ({n: _leaf(t) for n, t in state.items()} for state in stack_module_state(list(models)))
    skeleton = copy.deepcopy(models[0]).to("meta")
    for model in models:
        model.eval()
    feed = _Feed(inputs.to(device), targets.to(device), mixed, recipe, seeds, device)
    per_epoch = len(inputs) // feed.batch
    steps = recipe.epochs * per_epoch
    optimizer = optimizer_over(parameters.values(), recipe)
    losses: list[list[float]] = []
    for epoch in range(recipe.epochs):
        feed.shuffle()
        total = torch.zeros(len(models), device=device)
        for k in range(per_epoch):
            step = epoch * per_epoch + k
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(step, steps, per_epoch)
            images, wanted = feed.draw(k)
            with runtime.autocast():
                logits = _answers(skeleton, parameters, buffers, images).float()
            by_row = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(0, 1), reduction="none")
            value = by_row.view(len(models), -1).mean(1)
            optimizer.zero_grad(set_to_none=True)
            value.sum().backward()  # type: ignore[no-untyped-call] # a model's loss has no gradient for another's weights
            optimizer.step()
            total += value.detach()
            runtime.progress(description, step + 1, steps)
        losses.append([float(each) / per_epoch for each in total.tolist()])
        for each in losses[-1]:
            check_finite(each, epoch)
    with torch.no_grad():
        for index, model in enumerate(models):
            for name, tensor in (*model.named_parameters(), *model.named_buffers()):
                tensor.copy_((parameters[name] if name in parameters else buffers[name])[index])
    return tuple(zip(*losses, strict=True)) if losses else ((),) * len(models)


class _Feed:
    """The batches of all models: each model's as :func:`heirmark.training.fit` draws them from its seed."""

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        mixed: Mixed | None,
        recipe: Recipe,
        seeds: Sequence[int],
        device: torch.device,
    ) -> None:
        self.inputs, self.targets, self.kind, self.device = inputs, targets, recipe.augment, device
        self.batch = min(recipe.batch_size, len(inputs))
        self.generators = [generator_of(seed) for seed in seeds]
        self.order = torch.empty(0)
        self.extra: tuple[Tensor, Tensor] | None = None
        if mixed is not None:
            if len(mixed.inputs) == 0 or len(mixed.inputs) != len(mixed.targets):
                raise ShapeMismatch(
                    f"{len(mixed.inputs)} mixed-in inputs and {len(mixed.targets)} targets: "
                    "there must be some, one target each"
                )
            self.extra = mixed.inputs.to(device), mixed.targets.to(device)
            self.rows = [Rows(len(mixed.inputs), mixed.per_batch) for _ in seeds]

    def shuffle(self) -> None:
        """Begin an epoch."""
        count = len(self.inputs)
        self.order = sent(torch.stack([torch.randperm(count, generator=g) for g in self.generators]), self.device)

    def draw(self, number: int) -> tuple[Tensor, Tensor]:
        """Batch ``number`` of the epoch: ``[S, B, ...]`` float32 and ``[S, B]`` labels or ``[S, B, C]`` probabilities."""
        chosen = self.order[:, number * self.batch : (number + 1) * self.batch]
        moves, rows = [], []
        for index, generator in enumerate(self.generators):
            moves.append(draw_moves(self.batch, self.kind, generator))
            if self.extra is not None:
                rows.append(self.rows[index].draw(generator))
        drawn = tuple(sent(torch.cat(parts), self.device) for parts in zip(*moves, strict=True))
        images = move(as_floats(self.inputs[chosen.flatten()]), self.kind, drawn)
        images = images.reshape(*chosen.shape, *images.shape[1:])
        wanted = self.targets[chosen]
        if self.extra is not None:
            joined = sent(torch.stack(rows), self.device)
            labels = self.extra[1][joined]
            if wanted.ndim == 3:
                labels = F.one_hot(labels, wanted.shape[2]).to(wanted.dtype)
            images, wanted = torch.cat([images, as_floats(self.extra[0][joined])], 1), torch.cat([wanted, labels], 1)
        return images, wanted


def _answers(skeleton: nn.Module, parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Tensor:
    """Logits ``[S, B, C]`` of all models; their running statistics are updated in the stacked buffers."""

    def one(own: dict[str, Tensor], state: dict[str, Tensor], batch: Tensor) -> Tensor:
        with _WideBatchNorm():
            logits: Tensor = functional_call(skeleton, (own, state), (batch,))
        return logits

    try:
        logits: Tensor = torch.vmap(one, randomness="error")(parameters, buffers, images)
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        reason = str(error).strip().splitlines()[0]
        raise BadConfig(f"{type(skeleton).__name__} cannot be trained together ({reason}): fit one by one") from error
    return logits


class _WideBatchNorm(TorchFunctionMode):
    """While active, batch normalisation of stacked models is that of one model with the channels of all.

    The built-in rule normalises without scale and shift and applies these to the result, which costs two sweeps more and leaves
    bfloat16. Channels do not mix, so that nothing else changes.
    """

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Divert a call of batch normalisation."""
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Arguments as those of :func:`torch.nn.functional.batch_norm`."""
    rule: Any = _Wide.apply
    normalised: Tensor = rule(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return normalised


class _Wide(torch.autograd.Function):
    """Only a place for a rule: whatever the rule calls is differentiated as usual."""

    @staticmethod
    def forward(*arguments: Any) -> Any:
        raise NotImplementedError("this is for stacked models alone")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
        """Inputs ``[B, S, C, ...]`` become ``[B, SC, ...]``; running statistics are views, so that they are updated in place."""
        inputs, *tensors = arguments[:5]
        wide = inputs.movedim(in_dims[0], 1).flatten(1, 2)
        flat = [tensor if tensor is None else tensor.view(-1) for tensor in tensors]
        function: Any = F.batch_norm
        normalised = function(wide, *flat, *arguments[5:])
        return normalised.reshape(len(wide), info.batch_size, -1, *wide.shape[2:]), 1


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().requires_grad_(tensor.requires_grad)


def _check_alike(models: Sequence[nn.Module]) -> None:
    def look(model: nn.Module) -> list[object]:
        kinds: list[object] = [type(part) for part in model.modules()]
        kinds += [(name, p.shape, p.dtype, p.requires_grad) for name, p in model.named_parameters()]
        return kinds + [(name, b.shape, b.dtype) for name, b in model.named_buffers()]

    first = look(models[0])
    if any(look(model) != first for model in models) or len({id(model) for model in models}) < len(models):
        raise BadConfig(
            "models that train together must be different ones of one architecture: fit the others by themselves"
        )
