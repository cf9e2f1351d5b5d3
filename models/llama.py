"""A Llama-style decoder: RMS norms, rotary embedding, grouped-query attention, gated feed-forward; prefill and one decode step.

Shapes: B batch, S positions, T cached positions, D width, H query heads, G key/value heads, E head width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class LlamaConfig:
    """Published hyperparameters of one Llama-style model."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    context: int
    rope_base: float = 10000.0
    norm_eps: float = 1e-5
    tied: bool = True

    @property
    def head_width(self) -> int:
        return self.width // self.heads


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def rotary_table(positions: Tensor, config: LlamaConfig) -> tuple[Tensor, Tensor]:
    """cos and sin, each [S, E], of the rotation at the given positions [S]."""
    exponents = torch.arange(0, config.head_width, 2, dtype=torch.float32) / config.head_width
    angles = positions.float()[:, None] * (config.rope_base**-exponents)[None, :]
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [B, heads, S, E], halves convention."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        kv_width = config.kv_heads * config.head_width
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.k = nn.Linear(config.width, kv_width, bias=False)
        self.v = nn.Linear(config.width, kv_width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries [B, H, S, E], rotated keys and values [B, G, S, E] of x [B, S, D]."""
        batch, seq, _ = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, seq, -1, self.config.head_width).transpose(1, 2)

        return rotate(split(self.q(x)), cos, sin), rotate(split(self.k(x)), cos, sin), split(self.v(x))

    def merge(self, attended: Tensor) -> Tensor:
        """Output projection [B, S, D] of attended values [B, H, S, E]."""
        return self.out(attended.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = self.project(x, cos, sin)
        return self.merge(F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))


class FeedForward(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = RMSNorm(config.width, config.norm_eps)
        self.ffn = FeedForward(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.ffn(self.ffn_norm(x))


class Llama(nn.Module):
    """`ids [B, S] -> logits [B, S, V]`."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        if config.tied:
            self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        cos, sin = rotary_table(torch.arange(ids.shape[1]), self.config)
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.head(self.norm(x))


class LlamaDecode(nn.Module):
    """One decode step with a KV cache of T = `context` positions: `ids [B, 1], position [1] -> logits [B, 1, V]`.

    The caches are buffers `keys_i` and `values_i` [B, G, T, E]; a call writes position `position` and attends to all up to it.
    """

    def __init__(self, model: Llama, batch: int, context: int) -> None:
        super().__init__()
        self.model = model
        self.context = context
        config = model.config
        for index in range(config.layers):
            for name in ("keys", "values"):
                self.register_buffer(f"{name}_{index}", torch.zeros(batch, config.kv_heads, context, config.head_width))

    def forward(self, ids: Tensor, position: Tensor) -> Tensor:
        model = self.model
        cos, sin = rotary_table(position, model.config)
        visible = torch.arange(self.context) <= position
        x = model.embedding(ids)
        for index, layer in enumerate(model.layers):
            assert isinstance(layer, Layer)
            q, k, v = layer.attention.project(layer.attention_norm(x), cos, sin)
            keys, values = self.get_buffer(f"keys_{index}"), self.get_buffer(f"values_{index}")
            keys[:, :, position] = k
            values[:, :, position] = v
            attended = F.scaled_dot_product_attention(q, keys, values, attn_mask=visible[None, None, None, :], enable_gqa=True)
            x = x + layer.attention.merge(attended)
            x = x + layer.ffn(layer.ffn_norm(x))
        return model.head(model.norm(x))
