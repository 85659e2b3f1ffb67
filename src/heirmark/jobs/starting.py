"""An owner's own trained weights, of which a model is marked in place of one that is trained for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from heirmark.errors import BadArtifact, BadConfig, BadData
from heirmark.jobs.folder import ModelFolder
from heirmark.jobs.means import Work
from heirmark.jobs.worth import has_learned
from heirmark.loading import check_factory, describe_model
from heirmark.methods import METHODS, Method, Unmarked
from heirmark.models import Architecture, Net, factory_of, specify
from heirmark.models.storage import load_weights
from heirmark.querying.asking import predict
from heirmark.querying.oracle import call_model, checked_scores
from heirmark.runtime import Runtime
from heirmark.stages.stage import Stage
from heirmark.tasks.task import Split, Task
from heirmark.triggers import Entangled
from heirmark.work.adopting import adopt_stage, weights_stage
from heirmark.work.context import Context, exact
from heirmark.work.embedding import train_stage
from heirmark.work.victim import check_fit

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class Ground:
    """What a mark is put on.

    Attributes:
        context: that stages share.
        unmarked: trains the same model without the mark, and draws no key that is asked for.
        clean: the owner's clean model, given or trained; None where the method has no use for it.
        given: whether it is given.
    """

    context: Context
    unmarked: Unmarked
    clean: Stage | None
    given: bool

    def labels(self) -> dict[str, str]:
        """What people are told of the clean model's stage."""
        if self.clean is None:
            return {}
        return {self.clean.name: "take the clean model" if self.given else "train the clean model"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """The model that a method starts from, and takes for the owner's unmarked one.

    Attributes:
        path: the folder or the file of weights.
        architecture: of the model.
        net: the model.
        stage: what brings it into a store.
    """

    path: Path
    architecture: Architecture
    net: Net
    stage: Stage


def open_start(path: Path, model: Architecture | None, task: Task, *, runtime: Runtime) -> Start:
    """Read the weights, and make sure that they are of a task and have learned it.

    Args:
        path: a folder that heirmark wrote, or a ``.safetensors`` file.
        model: their architecture, of a file or a user's own net; None where a folder says it.
        task: what is to be marked for.
        runtime: device.

    Raises:
        BadArtifact: when the files are missing, foreign or damaged, or do not fit the architecture.
        BadConfig: when nothing says the architecture, or two things say two, or all layers are frozen.
        ShapeMismatch: when the model takes other inputs than the task's or knows another number of classes.
        BadData: when the model is right about no more of the calibration split than by chance.
    """
    if path.is_dir():
        start = _of_folder(path, model)
    elif path.suffix == ".safetensors":
        start = _of_file(path, model, task)
    elif path.exists():
        raise BadArtifact(
            f"{path} is no safetensors file, and no pickle is ever loaded: write one with "
            "safetensors.torch.save_file(model.state_dict(), ...), and name that"
        )
    else:
        raise BadArtifact(f"{path} does not exist: name a folder that heirmark wrote, or a .safetensors file")
    check_fit(start.net.spec, task)
    check_trained(start.net.askable(), task.calibration, classes=task.num_classes, runtime=runtime)
    return start


def _of_folder(path: Path, model: Architecture | None) -> Start:
    if not (path / "model.json").is_file() and (path / WEIGHTS).is_file():
        raise BadArtifact(
            f"{path} does not say the architecture of its weights (no model.json): name the file {path / WEIGHTS}, and the "
            "architecture with --model"
        )
    folder = ModelFolder(path, None if model is None else factory_of(model))
    spec = folder.spec
    if spec.front:
        raise BadConfig(f"{path} holds a model behind preprocessing of queries: name the model itself")
    if model is not None and spec != specify(model, input_shape=spec.input_shape, classes=spec.classes):
        named = model if isinstance(model, str) else "a model of your own"
        if factory_of(model) is None or folder.architecture != model:
            raise BadConfig(f"{path} holds {describe_model(spec)}, not {named}: leave --model out")
    stage = adopt_stage(path, "model", factory=folder.factory)
    return Start(path=path, architecture=folder.architecture, net=folder.net, stage=stage)


def _of_file(path: Path, model: Architecture | None, task: Task) -> Start:
    if model is None:
        raise BadConfig(
            f"the weights in {path} do not say their architecture: name it with --model, as NAME or package.module:factory"
        )
    spec, factory = specify(model, input_shape=task.input_shape, classes=task.num_classes), factory_of(model)
    if factory is not None:
        check_factory(factory, spec)
    net = load_weights(path, spec, factory=factory)
    return Start(path=path, architecture=model, net=net, stage=weights_stage(path, spec, factory=factory))


def ground_of(method: Method, task: Task, work: Work, start: Start | None) -> Ground:
    """What a method is to mark.

    Raises:
        BadConfig: when there is a start, and the method trains its own model in place of that.
    """
    if start is not None:
        check_starts(method)
    context = Context(
        task=task,
        runtime=work.runtime,
        factories=() if isinstance(method.model, str) else (method.model,),
        folders=() if start is None else (start.path,),
    )
    # To perturb samples for a key that nobody asks for would cost more than to train the model.
    trigger = method.trigger.of if isinstance(method.trigger, Entangled) else method.trigger
    unmarked = Unmarked(model=method.model, pretraining=method.pretraining, trigger=trigger, key_size=method.key_size)
    clean = train_stage(unmarked, context, seed=work.seed) if start is None and method.alters else None
    return Ground(
        context=context, unmarked=unmarked, clean=clean if start is None else start.stage, given=start is not None
    )


def check_starts(method: Method) -> None:
    """Make sure that a method marks the model that it is given.

    Raises:
        BadConfig: when it trains one from scratch.
    """
    if method.starts_from_clean:
        return
    able = []
    for name, kind in METHODS.items():
        if isinstance(kind.from_clean, tuple):
            able.append(f"{name} with --set {'='.join(kind.from_clean)}")
        elif kind.from_clean:
            able.append(name)
    raise BadConfig(
        f"{method.name} with these settings trains its model from scratch and cannot start from given weights: "
        f"take one of {', '.join(able)}"
    )


def check_trained(model: nn.Module, data: Split, *, classes: int, runtime: Runtime) -> None:
    """Make sure that a model can be marked: it has something to train, and is right more often than by chance.

    Raises:
        BadConfig: when all of its layers are frozen.
        BadData: when it knows nothing of the data.
        ModelFault: when it fails on them, or gives anything but a finite score for each class.
    """
    if not any(weight.requires_grad for weight in model.parameters()):
        raise BadConfig("no layer of the model may be trained, so none can learn a mark: unfreeze some (requires_grad)")
    logits = call_model(lambda given: predict(model, given, runtime=exact(runtime)), data.inputs)
    answers = checked_scores(logits, len(data), classes).argmax(1)
    right = float((answers == data.labels).double().mean())
    counts = [
        labels.bincount(minlength=int(max(answers.max(), data.labels.max())) + 1) for labels in (answers, data.labels)
    ]
    chance = float((counts[0].double() @ counts[1].double()) / len(data) ** 2)
    if not has_learned(right, chance, len(data)):
        raise BadData(
            f"the model is right about {right:.1%} of {len(data)} images, and its answers in random order would be about "
            f"{chance:.1%}: give the data that it has learned, with its order of classes, and put what it does to pixels "
            "beyond [0, 1], such as a normalisation, inside the model"
        )
