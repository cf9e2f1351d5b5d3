"""The tiny trained model that ships inside the package: two Llama layers, width 64, one token a character, adds numbers in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from .llama import Llama, LlamaConfig

FOLDER = Path(__file__).parent / "tiny"
TINY = LlamaConfig(vocabulary=32, width=64, layers=2, heads=4, kv_heads=2, hidden=128, context=64)


class CharacterTokenizer:
    """One id a character; characters outside the alphabet become `?`."""

    alphabet = "\n abcdefghijklmnopqrstuvwxyz.,?!"

    def encode(self, text: str) -> list[int]:
        return [self.alphabet.index(c) if c in self.alphabet else self.alphabet.index("?") for c in text.lower()]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.alphabet[i] for i in ids if i < len(self.alphabet))

    def generate(self, model: Llama, prompt: str, count: int) -> str:
        """The greedy continuation of `prompt` by torch, `count` characters."""
        ids = self.encode(prompt)
        start = len(ids)
        with torch.no_grad():
            for _ in range(count):
                ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        return self.decode(ids[start:])


def load() -> Llama:
    """The shipped model in evaluation mode."""
    model = Llama(TINY)
    state = {name: tensor.float() for name, tensor in load_file(str(FOLDER / "model.safetensors")).items()}
    model.load_state_dict({**state, "head.weight": state["embedding.weight"]})
    return model.eval()
