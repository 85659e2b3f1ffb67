"""Sequence classifiers of the library transformers, from a local folder: BERT and its kind.

They need ``pip install heirmark[transformers]``. Nothing is downloaded, no code of a folder is run, and weights are read from
safetensors alone.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.jit import is_tracing  # type: ignore[attr-defined]

from heirmark.errors import BadConfig, told
from heirmark.files import MIB, parse_json, read_json
from heirmark.models.layers import BuiltIn, Pretrained
from heirmark.tasks.media import Text, digest_of
from heirmark.tasks.space import PADDING, UNKNOWN

NAME = "transformer"
OWN = "heirmark"
"""What a configuration says beside what transformers reads."""
_MOST_WEIGHTS = 1 << 32
_IGNORED = (
    "_name_or_path", "architectures", "auto_map", "dtype", "id2label", "label2id", "num_labels", "torch_dtype",
    "transformers_version", "_attn_implementation_autoset",
)  # fmt: skip
"""Of where a configuration comes from, or of other classes than the task's."""


class Transformer(BuiltIn):
    """A net of transformers that reads the tokens of its own tokenizer, each text within what that puts around it, ``[CLS]`` say.

    With ``source`` it starts from the weights there, and its head, if there is none for so many classes, at random; without, all
    is random. Attention is written out (``eager``), so that rehearsals can differentiate it in every way.

    Args:
        input_shape: ``(L,)``.
        classes: number of logits.
        config: of the model, and under :data:`OWN` what its tokenizer is, as JSON.
        source: a folder of weights, with their digest behind ``#``.

    Raises:
        BadConfig: when transformers cannot be imported or does not know the configuration, or the folder has changed or gone.
        ValueError: when texts are longer than the net can read.
    """

    dimensions: ClassVar[int] = 1
    smallest: ClassVar[int] = 1
    from_folder: ClassVar[bool] = True

    def __init__(self, input_shape: tuple[int, ...], classes: int, *, config: str = "", source: str = "") -> None:
        super().__init__()
        own, described = configuration(config, classes)
        self.around: tuple[list[int], list[int]] = own["before"], own["after"]
        self.others: list[list[int]] = own["others"]
        self.padding, self.unknown = int(own["padding"]), int(own["unknown"])
        self.vocabulary = int(described.vocab_size)
        length = input_shape[0] + len(own["before"]) + len(own["after"])
        longest = getattr(described, "max_position_embeddings", None)
        if isinstance(longest, int) and longest > 0 and length > longest - self.padding_offset(described):
            raise ValueError(
                f"it reads {longest} tokens at most, and texts have {length}: give data with a lower length"
            )
        self.net = _weights(source, described) if source else _at_random(described)

    @classmethod
    def described(cls, folder: str) -> Pretrained:
        """See :func:`describe`."""
        return describe(folder)

    @staticmethod
    def padding_offset(config: Any) -> int:
        """Places that RoBERTa and its kind keep before the first token."""
        return int(config.pad_token_id) + 1 if "roberta" in str(config.model_type) and config.pad_token_id else 0

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ids ``[N, L]`` to logits ``[N, classes]``."""
        ids, there = self.sequences(inputs.long())
        logits: Tensor = self.net(input_ids=ids, attention_mask=there.long()).logits
        return logits

    def sequences(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Texts ``[N, L]`` by our ids as sequences ``[N, W]`` by the net's own, and where there is no padding."""
        before, after = self.around
        count = (ids != PADDING).sum(1, keepdim=True)
        if not (ids.is_cuda or torch.compiler.is_compiling() or is_tracing()):  # type: ignore[no-untyped-call]
            ids = ids[:, : max(1, int(count.max()))]
        theirs = ids
        for mine, other in self.others:
            theirs = torch.where(ids == mine, other, theirs)
        theirs = torch.where(theirs < self.vocabulary, theirs, self.unknown)
        columns = [torch.full_like(ids[:, :1], token) for token in before]
        columns += [theirs, *(torch.full_like(ids[:, :1], self.padding) for _ in after)]
        made = torch.cat(columns, 1)
        places = torch.arange(made.shape[1], device=ids.device)
        for number, token in enumerate(after):
            made = torch.where(places == len(before) + count + number, token, made)
        return made, places < len(before) + count + len(after)


def describe(text: str) -> Pretrained:
    """What ``FOLDER`` or ``FOLDER#DIGEST`` in ``transformer:FOLDER`` stands for.

    Raises:
        BadConfig: when there is no model, its weights are no safetensors or others than they were, or there is no tokenizer.
    """
    place, _, digest = text.rpartition("#") if "#" in text else (text, "", "")
    folder = Path(place).expanduser()
    if not (folder / "config.json").is_file():
        raise BadConfig(
            f"transformer:{place} names no model: name a folder with config.json, model.safetensors and tokenizer.json"
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise BadConfig(
            f"{place} has no safetensors, and no pickle is ever loaded: save it with safe_serialization=True"
        )
    facts = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in weights)
    found = _digest(facts)
    if digest and found != digest:
        raise BadConfig(
            f"the weights in {place} are not those that were named (#{digest}): restore them, or name the folder anew"
        )
    medium = Text.read(folder)
    try:
        said = read_json(folder / "config.json", max_bytes=MIB)
    except Exception as error:
        raise BadConfig(f"{folder / 'config.json'} cannot be read ({told(error)}): name another folder") from error
    if not isinstance(said, Mapping) or not isinstance(said.get("model_type"), str) or "quantization_config" in said:
        raise BadConfig(f"{folder / 'config.json'} describes no model of plain numbers: name another folder")
    before, after = medium.around
    others = [[mine, int(other)] for mine, other in enumerate(medium.theirs.tolist()) if mine != other]
    own = {
        "tokenizer": digest_of(medium),
        "before": list(before),
        "after": list(after),
        "others": others,
        "padding": int(medium.theirs[PADDING]),
        "unknown": int(medium.theirs[UNKNOWN]),
    }
    kept = {name: value for name, value in said.items() if name not in _IGNORED}
    return Pretrained(
        config=json.dumps({**kept, OWN: own}, sort_keys=True, allow_nan=False), source=f"{folder.resolve()}#{found}"
    )


def tokenizer_of(config: str) -> str:
    """SHA-256 of the tokenizer that a net reads by; see :func:`heirmark.tasks.media.digest_of`."""
    return str(parse_json(config, source="the configuration")[OWN]["tokenizer"])


def configuration(config: str, classes: int) -> tuple[dict[str, Any], Any]:
    """What we say of a net, and what transformers does; may come from a stranger's file.

    Raises:
        BadConfig: when it is no such configuration.
    """
    library = _library()
    try:
        said = parse_json(config, source="the configuration")
        own = said.pop(OWN)
        for name in ("before", "after"):
            assert all(type(token) is int and 0 <= token < 1 << 18 for token in own[name])
            assert len(own[name]) <= 8
        assert all(len(pair) == 2 and all(type(token) is int for token in pair) for pair in own["others"])
        assert len(own["others"]) <= 8
        kind = said.pop("model_type")
        made = library.AutoConfig.for_model(kind, **{key: said[key] for key in said if key not in _IGNORED})
        made.num_labels, made.problem_type = classes, "single_label_classification"
        with torch.device("meta"):
            blank = library.AutoModelForSequenceClassification.from_config(made, trust_remote_code=False)
        size = sum(weight.numel() for weight in blank.parameters())
    except Exception as error:  # whatever transformers makes of a stranger's values
        raise BadConfig(
            f"transformers knows no such sequence classifier ({told(error)[:300]}): name another folder"
        ) from error
    if size > _MOST_WEIGHTS:
        raise BadConfig(f"the model has {size:,} weights, more than the {_MOST_WEIGHTS:,} allowed: name a smaller one")
    return own, made


def _at_random(described: Any) -> nn.Module:
    made: nn.Module = _library().AutoModelForSequenceClassification.from_config(
        described, trust_remote_code=False, attn_implementation="eager"
    )
    return made.float()


def _weights(source: str, described: Any) -> nn.Module:
    place, _, digest = source.rpartition("#")
    facts = tuple(
        (str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(Path(place).glob("*.safetensors"))
    )
    if not facts or _digest(facts) != digest:
        raise BadConfig(
            f"the pretrained weights in {place}, from which a net is to start, have gone or changed: restore them, or name "
            "another folder with --model transformer:FOLDER"
        )
    library = _library()
    before = library.logging.get_verbosity()
    library.logging.set_verbosity_error()  # that the head is new
    try:
        made: nn.Module = library.AutoModelForSequenceClassification.from_pretrained(
            place,
            config=described,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            attn_implementation="eager",
        )
    except Exception as error:
        raise BadConfig(f"the weights in {place} cannot be used ({told(error)[:300]}): name another folder") from error
    finally:
        library.logging.set_verbosity(before)
    return made.float().train()


@functools.lru_cache(maxsize=8)
def _digest(facts: tuple[tuple[str, int, int], ...]) -> str:
    """Of files of weights as they are: their path, size and time tell when to look again."""
    total = hashlib.sha256()
    for path, _, _ in facts:
        with Path(path).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]


@functools.cache
def _library() -> Any:
    try:
        with torch.device("cpu"):
            import transformers
            from transformers.utils import logging
    except ImportError as error:
        raise BadConfig(
            f"this model is one of the library transformers, which cannot be imported ({told(error)}): pip install "
            '"heirmark[transformers]"'
        ) from error
    transformers.logging = logging
    told_of: Any = logging  # whose functions have no types
    told_of.disable_progress_bar()
    return transformers
