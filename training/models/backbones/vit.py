"""Parts of vision transformers that L2LTR and TransGeo share: tokens of an image, and layers over them.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021. Pre-norm layers, exact GELU.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geodtr.training.models.base import check_heads

EPSILON = 1e-6
"""Of every LayerNorm."""
_TABLE_STD = 0.5
"""Of learned tokens and positions before training: as large as embedded patches. DeiT's 0.02 drowns in them, and a
network that begins with nothing then hardly learns where things are (benchmarks/family.py).
"""


class Tokens(nn.Module):
    """Features [B, C, h, w] -> tokens [B, extra + h*w, width]: learned ones first, then the positions in rows.

    `embedding` is the convolution that makes the features; each token gets its row of the position table.
    """

    def __init__(self, embedding: nn.Conv2d, extra: int, positions: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.learned = nn.Parameter(torch.empty(1, extra, embedding.out_channels))
        self.position = nn.Parameter(torch.empty(1, extra + positions, embedding.out_channels))
        for table in (self.learned, self.position):
            nn.init.trunc_normal_(table, std=_TABLE_STD)

    def forward(self, features: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(features).flatten(2).transpose(1, 2)
        extra = self.learned.shape[1]
        # Rows of zeros, not the learned tokens expanded to the batch: an exported graph reads no batch size
        # (export/graph/export.py).
        learned = F.pad(self.learned, (0, 0, 0, self.position.shape[1] - extra))
        return F.pad(embedded, (0, 0, extra, 0)) + (learned + self.position)


class Attention(nn.Module):
    """Multi-head attention [B, N, C] -> [B, N, C]. Keys may come from other tokens than queries and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_heads(width, "the width of the tokens", heads)
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, tokens: Tensor, keys_from: Tensor) -> Tensor:
        parts = (self.query(tokens), self.key(keys_from), self.value(tokens))
        query, key, value = (split_heads(part, self.heads) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value)
        attended: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return attended


class Layer(nn.Module):
    """Tokens [B, N, C] -> [B, N, C]: attention, then a feed-forward network, each added to what it reads."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=EPSILON)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width, eps=EPSILON)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, feed_forward),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(feed_forward, width),
            nn.Dropout(dropout),
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                initialise(module)

    def forward(self, tokens: Tensor) -> Tensor:
        normalised = self.attention_norm(tokens)
        return self.feed(tokens + self.attention(normalised, normalised))

    def feed(self, tokens: Tensor) -> Tensor:
        """The second half of the layer."""
        fed: Tensor = tokens + self.feed_forward(self.feed_forward_norm(tokens))
        return fed


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """[B, N, C] -> [B, heads, N, C / heads]."""
    batch, number, width = tokens.shape
    return tokens.view(batch, number, heads, width // heads).transpose(1, 2)


def initialise(linear: nn.Linear) -> None:
    """Weights that keep the size of what they read at any width, no bias."""
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
