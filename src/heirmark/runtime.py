"""Where and how numbers are computed: device, precision, compiler, progress. No method's mathematics depends on it."""

from __future__ import annotations

import hashlib
import operator
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from heirmark.errors import BadConfig, printable

COMPILER = "inductor"
"""Backend of torch.compile."""

Progress = Callable[[str, int, int], None]
"""Called as ``progress(description, done, total)`` while long work goes on."""


def no_progress(description: str, done: int, total: int) -> None:
    """Report nothing: the default :data:`Progress`."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Device, precision, compiler and progress sink of a computation.

    Attributes:
        device: ``"auto"`` (CUDA when there is one, else the CPU) or any torch device string.
        precision: ``"float32"``, ``"bfloat16"`` (autocast), or ``"auto"``: bfloat16 where the hardware
            multiplies it, on a CPU AMX or AVX-512 BF16, and small nets train one and a half times to twice as fast as in
            float32 (``results/training.json``: AVX-512 BF16). By AVX-512 alone they train no faster.
        compile: whether models that train on one loss go through ``torch.compile``, which changes results by rounding alone. It
            seldom pays: on a GPU the steps of known layers are otherwise played as one recorded graph
            (:mod:`heirmark.training.cuda_graphs`), twice as fast with ResNet-18 on an H200 (``results/training_gpu.json``), and
            the first steps of every new model take up to a minute longer. The rehearsal and
            joint training, which differentiate one pass several times or forwards, are never compiled, nor are predictions.
        progress: callback that long work reports to; it takes no part in equality.

    Raises:
        BadConfig: for an unknown precision, or a device that torch does not have here.
    """

    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    progress: Progress = field(default=no_progress, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise BadConfig(f"unknown precision {self.precision!r}: choose auto, float32 or bfloat16")
        try:
            device = self.torch_device
        except RuntimeError:
            raise BadConfig(f"unknown device {self.device!r}: choose auto, cpu, cuda or cuda:0") from None
        if device.type == "meta":
            raise BadConfig("the device meta holds no numbers: choose auto, cpu or cuda")
        if device.type == "cuda" and not torch.cuda.is_available():
            raise BadConfig(f"device {self.device!r} was asked for but torch sees no CUDA here: choose cpu or auto")

    @property
    def torch_device(self) -> torch.device:
        """The device that ``device`` names."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    @property
    def uses_bfloat16(self) -> bool:
        """Whether training and inference run under bfloat16 autocast."""
        if self.precision != "auto":
            return self.precision == "bfloat16"
        if self.torch_device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported())
        return self.torch_device.type == "cpu" and any(_cpu_has(unit) for unit in ("amx_tile", "avx512_bf16"))

    def autocast(self) -> AbstractContextManager[object]:
        """Context under which forward passes run."""
        if not self.uses_bfloat16:
            return nullcontext()
        return torch.autocast(self.torch_device.type, torch.bfloat16)

    def compiled(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """The forward pass of a model, as training is to call it: compiled where that is asked for, else the model itself.

        Args:
            model: on its device; its parameters, buffers and modes stay the ones that count.

        Returns:
            Maps what the model maps. It raises BadConfig when it is called and the compiler cannot work here.
        """
        return _fast(model) if self.compile else model

    def options(self) -> list[str]:
        """Options of the command line that give the same numbers on another machine, where ``auto`` may be settled otherwise."""
        facts = self.facts()
        return ["--device", facts["device"], "--precision", facts["precision"], *["--compile"] * self.compile]

    def facts(self) -> dict[str, str]:
        """What of the runtime can change a number: device type, precision, torch version, and the compiler if there is one."""
        return {
            "device": self.torch_device.type,
            "precision": "bfloat16" if self.uses_bfloat16 else "float32",
            "torch": torch.__version__,
            **({"compile": COMPILER} if self.compile else {}),
        }


def _cpu_has(unit: str) -> bool:
    """Whether this CPU has a unit, as torch names it. Releases that cannot tell say no: float32 is right, only slower."""
    return bool(getattr(torch.cpu, f"_is_{unit}_supported", lambda: False)())


def _fast(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A compiled model whose compiler's errors name their remedy."""
    from torch._dynamo.exc import TorchDynamoException, TorchRuntimeError  # take seconds to load

    def refused(error: Exception) -> BadConfig:
        error = getattr(error, "inner_exception", error)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return BadConfig(
            f"torch.compile does not work for {type(model).__name__} here ({reason}): "
            "leave compile out, or install what it names"
        )

    try:
        # Shapes do not change while a model trains. Dropout has to draw the masks that it draws without a compiler.
        fast: Any = torch.compile(model, dynamic=False, backend=COMPILER, options={"fallback_random": True})
    except RuntimeError as error:  # this Python or platform has none
        raise refused(error) from error

    def run(inputs: Tensor) -> Tensor:
        try:
            logits: Tensor = fast(inputs)
        except TorchRuntimeError:
            raise  # the model's own
        except TorchDynamoException as error:
            raise refused(error) from error
        return logits

    return run


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Draw from the global generators as if they were freshly seeded, and afterwards give them their state back.

    Args:
        seed: of them.
        device: the only one besides the CPU whose generator is meant; None means all.

    Raises:
        BadConfig: see :func:`check_seed`.
    """
    seed = check_seed(seed)
    if device is None:
        devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    else:
        devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for each in devices:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield


def check_seed(seed: object) -> int:
    """A seed as a plain integer: the one rule for all that draws at random.

    Args:
        seed: an integer of any kind.

    Returns:
        The same number.

    Raises:
        BadConfig: when it is no integer, or not in [0, 2**63). True and tensors are none, for they are seldom meant; nor is None,
            which would be a seed that anybody can guess.

    Examples:
        >>> check_seed(7)
        7
    """
    try:
        if isinstance(seed, bool | torch.Tensor):
            raise TypeError
        number = operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not 0 <= number < 2**63:
        raise BadConfig(
            f"a seed is an integer from 0 to 2**63 - 1, not {printable(repr(seed))[:60]}: draw one with secrets.randbits(63)"
        )
    return number


def drawn_seed(seed: int | None) -> int:
    """A seed that was given, checked; in place of None one that nobody can guess, from the operating system.

    Raises:
        BadConfig: see :func:`check_seed`.
    """
    return secrets.randbits(63) if seed is None else check_seed(seed)


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, independent of the seeds for others.

    Args:
        seed: the run's seed.
        purpose: what it is for.

    Returns:
        An integer in [0, 2**63).

    Raises:
        BadConfig: see :func:`check_seed`.

    Examples:
        >>> derive_seed(0, "init") == derive_seed(0, "init") != derive_seed(0, "batches")
        True
    """
    text = "\x1f".join(str(part) for part in (check_seed(seed), *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_of(seed: int) -> torch.Generator:
    """A generator of its own, on the CPU.

    Raises:
        BadConfig: see :func:`check_seed`.
    """
    return torch.Generator().manual_seed(check_seed(seed))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Bring what was drawn on the CPU to a device; the host goes on at once, so that it can keep a GPU busy.

    A plain ``.to`` waits until the GPU has done all that it was told before. Page-locked memory needs no such wait; torch
    reuses it only after the copy.

    Args:
        tensor: on the CPU; must not be written to afterwards.
        device: any.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
