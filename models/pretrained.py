"""Trained models from downloaded files: SmolLM2-135M from GGUF, all-MiniLM-L6-v2 from safetensors, each with its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from ..errors import BadInput
from .bert import BertConfig, SentenceEncoder
from .fetch import MINILM, SMOLLM2, fetch
from .llama import Llama, LlamaConfig

MINILM_CONFIG = BertConfig(width=384, layers=6, hidden=1536)
SMOLLM2_CONFIG = LlamaConfig(vocabulary=49152, width=576, layers=30, heads=9, kv_heads=3, hidden=1536, context=8192, rope_base=100000.0)


class LibraryTokenizer:
    """A `tokenizers.Tokenizer` behind the two calls that the zoo needs."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))


def _need(module: str) -> Any:
    try:
        return __import__(module)
    except ImportError as error:
        raise BadInput(f"trained models need the package {module!r}: pip install 'spatialc[hf]'") from error


def load_smollm2() -> tuple[Llama, LibraryTokenizer]:
    """SmolLM2-135M-Instruct (Q4_1 weights, decoded to fp32) and its byte-level BPE tokenizer."""
    path = fetch(SMOLLM2) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    gguf = _need("gguf")
    _need("tokenizers")
    reader = gguf.GGUFReader(str(path))
    config = SMOLLM2_CONFIG
    state = {}
    for tensor in reader.tensors:
        value = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        name = _llama_name(tensor.name)
        if ".attention.q." in name or ".attention.k." in name:
            value = _halves_order(value, config.head_width)
        state[name] = torch.from_numpy(np.ascontiguousarray(value))
    with torch.device("meta"):
        model = Llama(config)
    model.load_state_dict({**state, "head.weight": state["embedding.weight"]}, assign=True)
    model.head.weight = model.embedding.weight
    return model.eval(), LibraryTokenizer(_bpe(reader))


_LLAMA_NAMES = {
    "attn_norm": "attention_norm", "ffn_norm": "ffn_norm", "attn_q": "attention.q", "attn_k": "attention.k",
    "attn_v": "attention.v", "attn_output": "attention.out", "ffn_gate": "ffn.gate", "ffn_up": "ffn.up", "ffn_down": "ffn.down",
}  # fmt: skip


def _llama_name(name: str) -> str:
    """Our parameter name of a GGUF tensor."""
    if name.startswith("blk."):
        _, index, part, suffix = name.split(".")
        return f"layers.{index}.{_LLAMA_NAMES[part]}.{suffix}"
    return {"token_embd.weight": "embedding.weight", "output_norm.weight": "norm.weight", "output.weight": "head.weight"}[name]


def _halves_order(weight: np.ndarray, head_width: int) -> np.ndarray:
    """GGUF keeps rotary pairs side by side; the model here rotates the first half of a head with the second."""
    rows, width = weight.shape
    pairs = weight.reshape(rows // head_width, head_width // 2, 2, width)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, width)


def _bpe(reader: Any) -> Any:
    """The byte-level BPE tokenizer whose tables a GGUF file carries (pre-tokenizer `smollm`: digits apart, then GPT-2's)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    def field(name: str) -> Any:
        return reader.fields[f"tokenizer.ggml.{name}"].contents()

    tokens, kinds = field("tokens"), field("token_type")
    merges = [tuple(merge.split(" ", 1)) for merge in field("merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t, kind in zip(tokens, kinds, strict=True) if kind == control])
    return tokenizer


def load_minilm() -> tuple[SentenceEncoder, LibraryTokenizer]:
    """all-MiniLM-L6-v2 and its WordPiece tokenizer (`[CLS] ... [SEP]` added, no padding, at most 256 tokens)."""
    folder: Path = fetch(MINILM)
    tokenizers = _need("tokenizers")
    state = {}
    for name, tensor in load_file(str(folder / "model.safetensors")).items():
        ours = _bert_name(name)
        if ours is not None:
            state[f"bert.{ours}"] = tensor.float()
    model = SentenceEncoder(MINILM_CONFIG)
    model.load_state_dict(state)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return model.eval(), LibraryTokenizer(tokenizer)


_BERT_NAMES = (
    ("embeddings.word_embeddings", "words"), ("embeddings.position_embeddings", "positions"),
    ("embeddings.token_type_embeddings", "segments"), ("embeddings.LayerNorm", "norm"), ("encoder.layer.", "layers."),
    ("attention.self.", ""), ("attention.output.dense", "out"), ("attention.output.LayerNorm", "attention_norm"),
    ("intermediate.dense", "up"), ("output.dense", "down"), ("output.LayerNorm", "ffn_norm"),
)  # fmt: skip


def _bert_name(name: str) -> str | None:
    """Our parameter name of a Hugging Face BERT tensor, None for the pooler and position ids."""
    if name.startswith("pooler.") or name.endswith("position_ids"):
        return None
    for theirs, ours in _BERT_NAMES:
        name = name.replace(theirs, ours)
    return name
