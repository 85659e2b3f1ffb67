"""Judge a suspect of a user's: a folder, an ONNX file, or code of the user's own that can be asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from heirmark.blackbox import BlackBox
from heirmark.errors import BadArtifact, BadConfig
from heirmark.key import Key
from heirmark.models import Factory
from heirmark.models.storage import ONNX
from heirmark.pipeline.context import exact
from heirmark.pipeline.folder import ModelFolder
from heirmark.pipeline.judging import CALIBRATION, read_calibration, read_key
from heirmark.pipeline.loading import user_object
from heirmark.runtime import Runtime
from heirmark.verification import Suspect, Verdict, verify
from heirmark.verification.normalising import Normalisation, checked_normalisation, given_normalised
from heirmark.verification.wilcoxon import WilcoxonResult, independent_triggers, verify_wilcoxon

_CODE = re.compile(r"[\w.]+:[\w.]+")


@dataclass(frozen=True, kw_only=True)
class Named:
    """A suspect as a user names it.

    Attributes:
        name: a folder that heirmark wrote, an ``.onnx`` file, or ``package.module:name`` of a torch module or of a function that
            maps float32 ``[B, ...]`` in [0, 1] to scores ``[B, C]`` or labels ``[B]``.
        factory: that builds the model of a folder, if it is the user's own.
        order: for each class of the suspect's the class of the key that it means, -1 for none; None where they are the same.
        normalise: what it wants its inputs normalised by.
    """

    name: str
    factory: Factory | None = None
    order: Sequence[int] | None = None
    normalise: Normalisation | None = None

    @property
    def onnx(self) -> Path | None:
        """The ONNX file that it is, or that its folder holds instead of a model of PyTorch's; None without one."""
        path = Path(self.name)
        if path.suffix.lower() == ".onnx":
            return path
        found = path / ONNX
        return found if found.is_file() and not (path / "model.json").is_file() else None

    @property
    def code(self) -> Callable[[Tensor], object] | None:
        """The user's own module or function; None where the name is of a file or folder.

        Raises:
            BadConfig: when it cannot be imported, or is a class.
        """
        if _CODE.fullmatch(self.name) is None or Path(self.name).exists():
            return None
        found: Callable[[Tensor], object] = user_object(self.name)
        if isinstance(found, type):
            raise BadConfig(f"{self.name} is a class: name a model made of it, or a function that asks one")
        return found


def parse_order(text: str) -> tuple[int, ...]:
    """The classes that a suspect's mean, from text such as ``"2,0,1,-"``; a dash means none.

    Raises:
        BadConfig: for anything else.

    Example:
        >>> parse_order("2, 0,-")
        (2, 0, -1)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part == "-" or part.isdecimal() for part in parts):
        raise BadConfig(
            f"--labels {text}: give for each class of the suspect's, in its order, the number of the class that it means in the "
            "key, or - for none, with commas"
        )
    return tuple(-1 if part == "-" else int(part) for part in parts)


def parse_normalisation(text: str) -> Normalisation:
    """Mean and standard deviation from ``"mean,std"``, or from all means and then all deviations of the channels.

    Raises:
        BadConfig: for anything else.

    Example:
        >>> parse_normalisation("0.5,0.25")
        ((0.5,), (0.25,))
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or len(numbers) % 2:
        raise BadConfig(f"--normalise {text}: give mean,std, or the means of all channels and then their deviations")
    return checked_normalisation((numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]))


def find_suspect(named: Named, key: Key, *, runtime: Runtime) -> Suspect:
    """Whom a name stands for, ready to be asked a key's queries.

    Raises:
        BadArtifact: when there is nothing that can be asked, or it is damaged.
        BadConfig: when the user's own code cannot be imported, a factory is missing, or the order of labels does not fit.
    """
    classes = key.classes if named.order is None else len(named.order)
    code, file = named.code, named.onnx
    if isinstance(code, nn.Module):
        found = Suspect.from_module(code, classes=classes, runtime=exact(runtime), normalise=named.normalise)
    elif code is not None:
        found = Suspect.from_callable(code, classes=classes, normalise=named.normalise)
    elif file is not None:
        found = Suspect.from_onnx(file, classes=classes, normalise=named.normalise)
    else:
        folder = folder_of(named)
        spec = folder.spec
        found = Suspect.from_module(
            folder.net.model,
            classes=spec.classes,
            input_shape=spec.input_shape,
            runtime=exact(runtime),
            normalise=named.normalise,
        )
    return found if named.order is None else found.relabelled(named.order, classes=key.classes)


def folder_of(named: Named) -> ModelFolder:
    """The folder of a suspect whose model heirmark stored.

    Raises:
        BadArtifact: when there is none; the message says what can be asked, and how a state dict comes to be.
        BadConfig: when a factory is missing, or does not fit.
    """
    folder = Path(named.name)
    if not (folder / "model.json").is_file():
        found = (
            "is missing" if not folder.exists() else "holds no model.json" if folder.is_dir() else "is no model alone"
        )
        raise BadArtifact(
            f"{named.name} {found}: a suspect is a folder that heirmark wrote, an .onnx file, or package.module:name of a torch "
            "module or of a function of a batch. A state dict needs its code: write in mine.py model = Net() and "
            "model.load_state_dict(torch.load(FILE, weights_only=True)), and verify mine:model"
        )
    return ModelFolder(folder, named.factory)


def verify_job(
    named: Named,
    key_folder: Path,
    calibration: Path | None,
    *,
    level: float,
    runtime: Runtime,
) -> Verdict:
    """Judge a suspect with a key.

    Args:
        named: whom.
        key_folder: folder of the key or of the marked model.
        calibration: its file; None looks for ``calibration.json`` beside the key.
        level: of significance.
        runtime: device and precision.

    Raises:
        BadArtifact: see :func:`find_suspect`; likewise for key and calibration.
        BadConfig: see :func:`find_suspect`.
    """
    key = read_key(key_folder)
    if calibration is None:
        # Above a folder named key lies what embed wrote with it; above any other, somebody else's calibration perhaps.
        folders = [key_folder, *([key_folder.absolute().parent] if key_folder.absolute().name == "key" else [])]
        calibration = next((folder / CALIBRATION for folder in folders if (folder / CALIBRATION).is_file()), None)
    measured = None if calibration is None else read_calibration(calibration)
    return verify(find_suspect(named, key, runtime=runtime), key, calibration=measured, level=level)


def check_wilcoxon(named: Named) -> None:
    """Make sure that a suspect gives probabilities of the key's classes.

    Raises:
        BadConfig: for an ONNX file, of which nothing says whether it does, and for one whose classes have other names.
    """
    if named.order is not None:
        raise BadConfig("--wilcoxon takes classes in the key's order only: leave --labels or --wilcoxon out")
    if named.onnx is not None:
        raise BadConfig(
            "--wilcoxon needs probabilities, and nothing says whether an ONNX file gives them: leave it out, "
            "or use heirmark.verification.wilcoxon.verify_wilcoxon with a BlackBox"
        )


def wilcoxon_job(named: Named, key_folder: Path, *, margin: float, runtime: Runtime) -> WilcoxonResult:
    """Put a suspect to Feature Sharing's test, which asks it for probabilities.

    Args:
        named: whom; a function has to give probabilities.
        key_folder: folder of the key or of the marked model.
        margin: the paper's alpha.
        runtime: device and precision.
    """
    key = read_key(key_folder)
    asked, classes = named.code, key.classes
    if asked is None:
        folder = folder_of(named)
        asked, classes = folder.net.model, folder.spec.classes
    box = BlackBox(
        given_normalised(asked, named.normalise), classes=classes, input_shape=key.input_shape, runtime=exact(runtime)
    )
    # A resample of fewer than 5 could never reject at 0.05.
    return verify_wilcoxon(box, key, margin=margin, share=max(0.1, min(1.0, 5 / len(independent_triggers(key)))))
