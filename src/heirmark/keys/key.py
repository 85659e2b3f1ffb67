"""The key: held-out triggers, the answers that a marked model gives them, matched controls, and a commitment to it all.

A key is data. It is drawn once by the method that marks a model, trains nothing, and is all that a verifier needs. Its
commitment can be published or time-stamped on the day of marking without giving the key away: the nonce hides even a
key whose triggers could be guessed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import torch
from torch import Tensor

from heirmark.configuration import Constraint, checked, within
from heirmark.errors import BadArtifact, BadConfig, BadData, HeirmarkError, ShapeMismatch
from heirmark.files import GIB, MIB, atomic_write_json, atomic_write_tensors, read_json, read_tensors
from heirmark.keys.contents import MAX_TRIGGER, canonical, check_tensors, from_description, plain_json
from heirmark.keys.lots import LOTS, PREFIX, Lots
from heirmark.tasks.media import Medium, digest_of, load_medium, save_medium
from heirmark.tasks.storing import row_digests
from heirmark.training.samples import Reference

FORMAT: Final = "heirmark-key/2"
OLD_FORMAT: Final = "heirmark-key/1"
"""Its manifest had ``kind`` and ``memorised`` in the description of the secret, and no ``reference``."""
DRAWN_FORMAT: Final = "heirmark-key/3"
"""Of a key with lots; all others keep the format before."""
_TENSORS = ("queries", "expected", "controls", "host_labels")
_OLD_FACTS = ("classes", "method", "trigger", "nonce")
_FACTS = ("kind", "memorised", "reference", *_OLD_FACTS)
_NAME = Constraint("of 1 to 100 characters", lambda name: 1 <= len(name) <= 100)
_NONCE = Constraint(
    "of 64 lower-case hex digits, as secrets.token_hex(32) draws them",
    lambda nonce: re.fullmatch(r"[0-9a-f]{64}", nonce) is not None,
)
MISTAKES = "mistakes"
"""Kind of a fingerprint's triggers, which any model may answer alike: without a calibration such a key proves nothing."""
LARGEST = 8 * GIB
"""Keys that take more are neither written nor read: what is read is untrusted, and nobody should write what cannot be read."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
@checked
class Key:
    """What an owner keeps to prove that a model is theirs. Tensors are copied to the CPU when the key is made.

    Attributes:
        queries: ``[M, ...]`` uint8 (0..255) or float32 in [0, 1]: held-out triggers, all different, that train nothing;
            unless the key is :attr:`memorised`.
        expected: ``[M]`` int64, the answer a marked model gives each query.
        controls: like ``queries``; row i shows the host or hosts of ``queries[i]`` without the trigger, or where there
            is no host a like input that carries no mark; it differs from the query.
        classes: number of classes C of the marked model.
        method: the method that drew the key, such as ``"t2s"``.
        trigger: JSON description of the secret, for its owner: nothing here reads it.
        nonce: 64 lower-case hex digits that salt the commitment.
        host_labels: ``[M, H]`` int64, the true classes of the H hosts of each query; -1 where there are fewer, H = 0
            where there is none (the default). Never the expected answer: such a host proves nothing.
        kind: of trigger, which is public, such as ``"tiles"``.
        memorised: whether the queries are those that trained the marked model, as random labels need.
        lots: what the answers are drawn among, where they are; see :mod:`heirmark.keys.drawing`.
        reference: what a test of probabilities compares the answer to a query with: that to its ``"control"``, or ``"chance"``
            where the query is another data set's image as it is.
        medium: how queries are shown to people and put to services, where they are sound or text.
        format: of its commitment and its files; a key keeps that by which it was committed to.

    Raises:
        ShapeMismatch: if the tensors' shapes or dtypes do not fit each other.
        BadData: for values out of range, repeated queries, queries equal to their control, or target-class hosts.
        BadConfig: if any other field is unusable.
    """

    queries: Tensor
    expected: Tensor
    controls: Tensor
    classes: Annotated[int, within(2, 1 << 20)]
    method: Annotated[str, _NAME]
    trigger: dict[str, Any]
    nonce: Annotated[str, _NONCE]
    host_labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    kind: Annotated[str, _NAME] = "unknown"
    memorised: bool = False
    reference: Reference = "control"
    lots: Lots | None = None
    medium: Medium | None = None
    format: Literal["heirmark-key/3", "heirmark-key/2", "heirmark-key/1"] = FORMAT

    def __post_init__(self) -> None:
        if not self.host_labels.numel():
            object.__setattr__(self, "host_labels", torch.empty(*self.queries.shape[:1], 0, dtype=torch.int64))
        for name in _TENSORS:
            # Copies, so that nobody who holds the original can change the key behind its commitment.
            object.__setattr__(self, name, getattr(self, name).detach().to("cpu", copy=True).contiguous())
        object.__setattr__(self, "trigger", plain_json(self.trigger))
        if self.format != OLD_FORMAT:
            object.__setattr__(self, "format", FORMAT if self.lots is None else DRAWN_FORMAT)
        elif self.lots is not None or self.medium is not None:
            raise BadConfig("a key of the oldest format has neither lots nor a medium: make it anew")
        check_tensors(self)

    def __len__(self) -> int:
        """Number of queries M."""
        return len(self.queries)

    def __repr__(self) -> str:
        """Name the key without telling its secret."""
        shape = "x".join(str(size) for size in self.queries.shape)
        return (
            f"Key(method={self.method!r}, queries={shape}, classes={self.classes}, commitment={self.commitment[:16]!r})"
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one query."""
        return tuple(self.queries.shape[1:])

    @property
    def commitment(self) -> str:
        """SHA-256 (64 hex digits) that fixes every field; of a key of the old format, its content's alone.

        Computed afresh every time, so that it always speaks of what the tensors hold now.
        """
        if self.format == OLD_FORMAT:
            return self.content
        said = {name: getattr(self, name) for name in _FACTS if name not in _OLD_FACTS}
        if self.lots is not None:
            said["lots"] = self.lots.digest
        if self.medium is not None:
            said["medium"] = digest_of(self.medium)
        return hashlib.sha256(canonical([self.format, said, self.content])).hexdigest()

    @property
    def content(self) -> str:
        """SHA-256 (64 hex digits) over a canonical encoding of what keys of every format have, each part behind its length."""
        digest = hashlib.sha256()

        def part(data: bytes | memoryview) -> None:
            view = memoryview(data)
            digest.update(view.nbytes.to_bytes(8, "little"))
            digest.update(view)

        part(OLD_FORMAT.encode())
        part(self.nonce.encode())  # salts all the rest
        part(canonical({"classes": self.classes, "method": self.method, "trigger": self.trigger}))
        for name in _TENSORS:
            values = getattr(self, name).numpy()
            part(canonical([name, values.dtype.name, list(values.shape)]))
            part(values.astype(values.dtype.newbyteorder("<"), copy=False).data)
        return digest.hexdigest()

    @cached_property
    def digests(self) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Of the content of each query, and of each control; see :func:`heirmark.tasks.storing.row_digests`."""
        return tuple(row_digests(self.queries)), tuple(row_digests(self.controls))

    def answered(self, targets: tuple[int, ...]) -> Key:
        """The same key with other answers of its groups, one for each.

        Raises:
            BadData: when the key has no lots, or an answer is no candidate.
        """
        if self.lots is None:
            raise BadData("the answers of this key are not drawn: make one with trigger=groups")
        return replace(self, expected=torch.tensor(targets)[self.lots.groups])

    def subset(self, rows: Tensor, **changes: Any) -> Key:
        """Some of the rows ``[K]`` (int64) as a key of its own, in that order, with what ``changes`` says besides."""
        picked = {name: getattr(self, name)[rows] for name in _TENSORS}
        return replace(self, **picked, lots=None if self.lots is None else self.lots.rows(rows), **changes)

    def independent_pairs(self) -> Tensor:
        """Rows whose control no earlier row has, ``[P]`` int64: pairs that share a control are not independent."""
        first: dict[bytes, int] = {}
        for row, digest in enumerate(self.digests[1]):
            first.setdefault(digest, row)
        return torch.tensor(list(first.values()))

    def disjoint_from(self, inputs: Tensor) -> bool:
        """Whether none of the queries occurs among ``inputs``, compared by content.

        Args:
            inputs: ``[N, ...]`` uint8 or float in [0, 1], such as everything that trained a model. The two storage
                forms of one image (x and x/255) count as the same.

        Returns:
            True if no input equals a query.

        Raises:
            ShapeMismatch: if an input has not the shape of a query, so that the question makes no sense.
        """
        if tuple(inputs.shape[1:]) != self.input_shape:
            raise ShapeMismatch(
                f"inputs of shape {tuple(inputs.shape[1:])} cannot be compared with queries of shape "
                f"{self.input_shape}: pass the inputs as the model sees them"
            )
        return set(self.digests[0]).isdisjoint(row_digests(inputs))

    def save(self, folder: Path) -> None:
        """Write ``key.safetensors`` and then ``key.json``, readable by you only; a crash leaves nothing that loads.

        Args:
            folder: made if missing. Saving the same key again repairs its files; another key is never overwritten,
                for a lost key cannot be drawn again.

        Raises:
            BadArtifact: if the folder already holds another key, or this one is larger than any that :meth:`load` reads.
        """
        folder = Path(folder)
        tensors = {name: getattr(self, name) for name in _TENSORS} | ({} if self.lots is None else self.lots.tensors())
        size = sum(tensor.nbytes for tensor in tensors.values())
        if size > LARGEST - MIB:  # a header comes on top
            raise BadArtifact(
                f"the key takes {size / GIB:.1f} GiB, and no more than {LARGEST / GIB:.1f} are read again: draw fewer queries"
            )
        commitment = self.commitment
        if (folder / "key.json").exists() and _manifest(folder).get("commitment") != commitment:
            raise BadArtifact(f"{folder} already holds another key: choose a new folder")
        atomic_write_tensors(folder / "key.safetensors", tensors, private=True)
        shown = {}
        if self.medium is not None:
            save_medium(self.medium, folder)
            shown = {"medium": digest_of(self.medium)}
        # The manifest goes last: until it is there, the folder holds no key.
        facts = {name: getattr(self, name) for name in (_OLD_FACTS if self.format == OLD_FORMAT else _FACTS)}
        manifest = {"format": self.format, "commitment": commitment, **shown, **facts}
        atomic_write_json(folder / "key.json", manifest, private=True)

    @classmethod
    def load(cls, folder: Path, *, max_bytes: int | None = None) -> Key:
        """Read a key that :meth:`save` wrote, trusting nothing in it.

        Args:
            folder: holds ``key.json`` and ``key.safetensors``.
            max_bytes: refuse a larger ``key.safetensors``; None takes :data:`LARGEST`.

        Raises:
            BadArtifact: if a file is missing, truncated, foreign or too large, a value is out of range, or the content
                does not match the commitment.
        """
        folder = Path(folder)
        manifest = _manifest(folder)
        expected = _OLD_FACTS if manifest["format"] == OLD_FORMAT else _FACTS
        if set(manifest) - {"medium"} != {"format", "commitment", *expected} or not isinstance(
            manifest["trigger"], dict
        ):
            raise BadArtifact(
                f"{folder / 'key.json'} is not a key's manifest: copy the key again from where it was made"
            )
        limit = LARGEST if max_bytes is None else max_bytes
        names = _TENSORS + (LOTS if manifest["format"] == DRAWN_FORMAT else ())
        tensors = read_tensors(folder / "key.safetensors", max_bytes=limit, names=names)
        lots = {name: tensors.pop(name) for name in names if name.startswith(PREFIX)}
        try:
            facts = {name: manifest[name] for name in ("format", *expected)}
            facts |= from_description(manifest["trigger"]) if facts["format"] == OLD_FORMAT else {}
            values: dict[str, Any] = {**tensors, **facts, "lots": Lots.of_tensors(lots) if lots else None}
            values["medium"] = load_medium(folder) if "medium" in manifest else None
            key = cls(**values)
        except HeirmarkError as error:
            raise BadArtifact(f"{folder} holds no usable key ({error}): copy it again from where it was made") from None
        if key.commitment != manifest["commitment"]:
            raise BadArtifact(
                f"the key in {folder} does not match its commitment: it was changed or damaged; restore a copy"
            )
        return key


def _manifest(folder: Path) -> dict[str, Any]:
    manifest = read_json(folder / "key.json", max_bytes=2 * MAX_TRIGGER)
    if not isinstance(manifest, dict) or manifest.get("format") not in (FORMAT, OLD_FORMAT, DRAWN_FORMAT):
        raise BadArtifact(
            f"{folder / 'key.json'} is no manifest of format {FORMAT}: check the folder, or update heirmark"
        )
    return manifest
