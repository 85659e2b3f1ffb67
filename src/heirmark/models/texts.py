"""Small nets for texts: a convolutional one, one layer of an LSTM, and a bag of words."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.jit import is_tracing  # type: ignore[attr-defined]

from heirmark.models.layers import BuiltIn
from heirmark.tasks.space import PADDING, UNKNOWN


class Words(nn.Embedding):
    """The first layer of a net for texts: ids of tokens as vectors, padding as zeros.

    Ids beyond the vocabulary are unknown tokens. A tokenizer that heirmark trains has its words in order of frequency, so a net
    of a smaller vocabulary knows the more frequent ones.

    Args:
        vocabulary: how many tokens it knows.
        width: of a vector.
    """

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__(vocabulary, width, padding_idx=PADDING)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ids ``[N, L]`` to vectors ``[N, L, width]``."""
        ids = inputs.long()
        return super().forward(torch.where(ids < self.num_embeddings, ids, UNKNOWN))


class Windows(nn.Module):
    """Convolutions over windows of several widths, each map's largest value (Kim 2014, eq. 1-3).

    Args:
        width: of a word's vector.
        maps: feature maps of each window.
    """

    def __init__(self, width: int, maps: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(width, maps, words) for words in TextCNN.windows)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map ``[N, L, width]`` to ``[N, windows * maps]``."""
        lines = vectors.transpose(1, 2)
        return torch.cat([convolution(lines).relu().amax(2) for convolution in self.convolutions], 1)


class TextCNN(BuiltIn):
    """One convolutional layer over word vectors (Kim 2014, arXiv 1408.5882): windows of 3, 4 and 5 words, dropout of 0.5.

    The paper's vectors have 300 numbers and come from word2vec; here they are learned ("CNN-rand") and have 128.

    Args:
        input_shape: ``(L,)`` with L of at least 5.
        classes: number of logits.
        vocabulary: tokens that it knows; see :class:`Words`.
        width: of a word's vector.
        maps: feature maps of each window.
        dropout: probability of dropping a feature.
    """

    dimensions: ClassVar[int] = 1
    smallest: ClassVar[int] = 5
    windows: ClassVar[tuple[int, ...]] = (3, 4, 5)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        vocabulary: int = 8192,
        width: int = 128,
        maps: int = 100,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(Words(vocabulary, width), Windows(width, maps), nn.Dropout(dropout))
        self.head = nn.Linear(maps * len(self.windows), classes)


class Recurrence(nn.Module):
    """One layer of an LSTM (Hochreiter & Schmidhuber 1997) read to the last token of each text.

    It is written out in plain operations: a rehearsal differentiates passes in ways that the library's own kernels do not know.

    Args:
        width: of a word's vector.
        hidden: units.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.inner, self.outer = nn.Linear(width, 4 * hidden), nn.Linear(hidden, 4 * hidden, bias=False)
        with torch.no_grad():
            self.inner.bias[hidden : 2 * hidden] = 1.0  # of the forget gate (Jozefowicz 2015): else it forgets at first

    def forward(self, vectors: Tensor, there: Tensor) -> Tensor:
        """The state after the last token.

        Args:
            vectors: ``[N, L, width]``.
            there: ``[N, L]`` bool, where there is a token and no padding, which lies behind.

        Returns:
            ``[N, hidden]``.
        """
        steps = vectors.shape[1]
        if not (vectors.is_cuda or torch.compiler.is_compiling() or is_tracing()):  # type: ignore[no-untyped-call]
            steps = max(1, int(there.sum(1).max()))  # what is padding in all texts need not be read
        given = self.inner(vectors[:, :steps])
        state: Tensor = torch.zeros_like(given[:, 0, : self.hidden])  # of any size of batch, written as ONNX, too
        memory = state
        for step in range(steps):
            gates = given[:, step] + self.outer(state)
            entry, forget, update, exit_ = gates.chunk(4, 1)
            fresh = forget.sigmoid() * memory + entry.sigmoid() * update.tanh()
            shown = exit_.sigmoid() * fresh.tanh()
            read = there[:, step, None]
            memory, state = torch.where(read, fresh, memory), torch.where(read, shown, state)
        return state


class Reader(nn.Module):
    """Word vectors, and the recurrence over them.

    Args:
        vocabulary: see :class:`Words`.
        width: of a word's vector.
        hidden: units.
        dropout: probability of dropping a number of a word's vector, or of the state.
    """

    def __init__(self, vocabulary: int, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.words, self.recurrence = Words(vocabulary, width), Recurrence(width, hidden)
        self.before, self.after = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ids ``[N, L]`` to ``[N, hidden]``."""
        state: Tensor = self.after(self.recurrence(self.before(self.words(inputs)), inputs != PADDING))
        return state


class LSTM(BuiltIn):
    """One layer of an LSTM, the victim of MEA-Defender (arXiv 2401.15239) on AG News; the paper gives no sizes.

    Args:
        input_shape: ``(L,)``.
        classes: number of logits.
        vocabulary: tokens that it knows; see :class:`Words`.
        width: of a word's vector.
        hidden: units of the layer, which are the features.
        dropout: before and behind the layer.
    """

    dimensions: ClassVar[int] = 1
    smallest: ClassVar[int] = 1

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        vocabulary: int = 8192,
        width: int = 128,
        hidden: int = 128,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.features = Reader(vocabulary, width, hidden, dropout)
        self.head = nn.Linear(hidden, classes)


class Bag(nn.Module):
    """The mean of a text's word vectors."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.words = Words(vocabulary, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ids ``[N, L]`` to ``[N, width]``."""
        there = (inputs != PADDING).to(self.words.weight.dtype)[..., None]
        mean: Tensor = (self.words(inputs) * there).sum(1) / there.sum(1).clamp_min(1)
        return mean


class FastText(BuiltIn):
    """The mean of word vectors, after fastText (Joulin 2016, arXiv 1607.01759), and one hidden layer over it: a bag of words.

    It has no pairs of words, as fastText may have. The hidden layer is ours: it lets features be more than a sum over words.

    Args:
        input_shape: ``(L,)``.
        classes: number of logits.
        vocabulary: tokens that it knows; see :class:`Words`.
        width: of a word's vector.
        hidden: units of the layer, which are the features.
    """

    dimensions: ClassVar[int] = 1
    smallest: ClassVar[int] = 1

    def __init__(
        self, input_shape: tuple[int, ...], classes: int, *, vocabulary: int = 8192, width: int = 128, hidden: int = 128
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(Bag(vocabulary, width), nn.Linear(width, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, classes)
