"""Vision transformers for small images, and the encoder layer that MobileViT shares with them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.models.layers import BuiltIn, Door

DEEPEST = 64
"""More layers than this are refused: a description of a model may come from a stranger."""
MOST_PATCHES = 4096
"""More patches than this are refused likewise: the memory of attention may grow with their square. Images of 64 pixels may have
patches of 1, images of 224 patches of 4."""


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani 2017, arXiv 1706.03762).

    Args:
        dim: length of a token.
        heads: that share it evenly.
        dropout: probability of dropping a number of the output.
    """

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(
                f"{heads} heads cannot share tokens of {dim} numbers evenly: choose a multiple of the heads"
            )
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``[N, T, dim]`` to the same shape."""
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        mixed = F.scaled_dot_product_attention(query, key, value)
        outputs: Tensor = self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        return outputs


class EncoderLayer(nn.Module):
    """Attention and a perceptron of one hidden layer, each after LayerNorm and beside a shortcut.

    Args:
        dim: length of a token.
        heads: of the attention.
        hidden: units of the perceptron.
        activation: of the perceptron.
        eps: of LayerNorm.
        dropout: after every linear layer but the one that makes queries, keys and values.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        *,
        activation: type[nn.Module] = nn.GELU,
        eps: float = 1e-6,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attention = Attention(dim, heads, dropout=dropout)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.perceptron = nn.Sequential(
            nn.Linear(dim, hidden), activation(), nn.Dropout(dropout), nn.Linear(hidden, dim), nn.Dropout(dropout)
        )
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``[N, T, dim]`` to the same shape."""
        tokens = tokens + self.attention(self.norm1(tokens))
        outputs: Tensor = tokens + self.perceptron(self.norm2(tokens))
        return outputs


class Tokens(nn.Module):
    """Cut images into square patches, map each to a token, put a class token first and add learnt positions.

    Sides that are no multiple of the patch are filled up with mid-grey, on the right and below.

    Args:
        input_shape: ``(C, H, W)``.
        dim: length of a token.
        patch: side of a patch in pixels.
    """

    def __init__(self, input_shape: tuple[int, int, int], dim: int, patch: int) -> None:
        super().__init__()
        channels, height, width = input_shape
        if patch > min(height, width):
            raise ValueError(f"a patch of {patch} pixels does not fit into images of {height} by {width}")
        patches = -(-height // patch) * -(-width // patch)
        if patches > MOST_PATCHES:
            raise ValueError(
                f"images of {height} by {width} in patches of {patch} pixels are {patches} patches, more than "
                f"{MOST_PATCHES}: raise patch"
            )
        self.filling = (0, -width % patch, 0, -height % patch)
        self.embed = nn.Conv2d(channels, dim, patch, patch)
        self.first = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.empty(1, 1 + patches, dim))
        # Not normal_, for which torch loads its compiler, seconds long, when a model is built on the meta device.
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[N, C, H, W]``, mid-grey at 0, to ``[N, 1 + patches, dim]``."""
        patches = self.embed(F.pad(inputs, self.filling)).flatten(2).transpose(1, 2)
        count = patches.shape[0]  # not len(), which would tie an exported model to one size of batch
        return torch.cat([self.first.expand(count, -1, -1), patches], 1) + self.positions


class FirstToken(nn.Module):
    """The class token, ``[N, T, dim]`` to ``[N, dim]``."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``[N, T, dim]`` to ``[N, dim]``."""
        return tokens[:, 0]


class ViT(BuiltIn):
    """Vision transformer (Dosovitskiy 2020, arXiv 2010.11929), by default of the small size; a thief of T2S, Table III.

    The encoder is the paper's: class token, learnt positions, LayerNorm first, GELU, four hidden units a number of a token. The
    small size (384, 12 layers, 6 heads) is that of DeiT-S (Touvron 2020, arXiv 2012.12877); T2S does not give its own. Patches
    of 4 pixels, not 16, are for images of 32. Linear layers start as Xavier, positions normal with sd 0.02, and the head
    not at zero. As in the paper such a net needs much data: on CIFAR alone it learns less than a convolutional one.

    Args:
        input_shape: ``(C, H, W)`` with H, W of at least 8, and no smaller than a patch.
        classes: number of logits.
        patch: side of a patch in pixels; an image has at most 4096 of them.
        dim: length of a token, a multiple of ``heads``; the class token, normalised, is the features.
        depth: encoder layers, at most 64.
        heads: of the attention.
        dropout: after the positions and after every linear layer but the one that makes queries, keys and values; the paper
            has 0.1 for training on ImageNet alone.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        *,
        patch: int = 4,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if depth > DEEPEST:
            raise ValueError(f"a depth of {depth} is more than {DEEPEST} layers")
        self.features = nn.Sequential(
            Door(),
            Tokens(input_shape, dim, patch),
            nn.Dropout(dropout),
            *(EncoderLayer(dim, heads, 4 * dim, dropout=dropout) for _ in range(depth)),
            nn.LayerNorm(dim, eps=1e-6),
            FirstToken(),
        )
        self.head = nn.Linear(dim, classes)
