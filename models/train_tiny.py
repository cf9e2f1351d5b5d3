"""Train the tiny model that ships inside the package: a two-layer Llama that adds small numbers in words.

Run `python -m spatialc.models.train_tiny` to write `models/tiny/` again (about three minutes on one core). Weights are rounded to
half precision before they are saved, so that fp16 machines hold exactly the weights that torch computes with.
"""

from __future__ import annotations

import random

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from .llama import Llama
from .tiny_model import FOLDER, TINY, CharacterTokenizer

NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen".split()


def sentences() -> list[str]:
    """Every fact that the model should know, one sentence each."""
    facts = [f"{NUMBERS[a]} plus {NUMBERS[b]} is {NUMBERS[a + b]}." for a in range(10) for b in range(10)]
    return facts + [f"after {NUMBERS[a]} comes {NUMBERS[a + 1]}." for a in range(18)]


def train(steps: int = 6000, batch: int = 48, length: int = 63) -> Llama:
    """The trained model in evaluation mode, its weights rounded to half precision."""
    torch.manual_seed(0)
    draw = random.Random(0)
    tokenizer, facts = CharacterTokenizer(), sentences()
    model = Llama(TINY)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    for step in range(steps):
        rows = []
        for _ in range(batch):
            text = ""
            while len(text) <= length:
                text += draw.choice(facts) + " "
            rows.append(tokenizer.encode(text)[: length + 1])
        data = torch.tensor(rows)
        logits = model(data[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), data[:, 1:].flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    return model.eval()


def main() -> None:
    model = train()
    tokenizer = CharacterTokenizer()
    right = 0
    for fact in sentences():
        words = fact.split()
        prompt = " ".join(words[:-1])
        text = tokenizer.generate(model, prompt, 12)
        right += text.strip().split(".")[0] == words[-1][:-1]
    print(f"{right} of {len(sentences())} facts right")
    FOLDER.mkdir(exist_ok=True)
    save_file({k: v.half() for k, v in model.state_dict().items() if k != "head.weight"}, str(FOLDER / "model.safetensors"))


if __name__ == "__main__":
    main()
