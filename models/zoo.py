"""The models that spatialc knows by name: published shapes, trained weights where they can be had, inputs to run them on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from ..errors import BadInput
from . import tiny_model
from .bert import Bert, BertConfig
from .gpt2 import GPT2, GPT2Config
from .llama import Llama, LlamaConfig, LlamaDecode
from .vit import ViT, ViTConfig

LLAMA_TINY = LlamaConfig(vocabulary=512, width=128, layers=4, heads=8, kv_heads=4, hidden=256, context=128)


class Tokenizer(Protocol):
    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Case:
    """One model with one set of inputs. `tokens` says that the last output axis is a vocabulary, `classes` that it is classes."""

    name: str
    module: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    phase: str = "prefill"
    batch: int = 1
    seq: int = 1
    context: int = 1
    tokens: bool = False
    classes: bool = False
    tokenizer: Tokenizer | None = None


@dataclass(frozen=True)
class Request:
    """What the caller wants to run: a prompt or a sequence length, a batch, a phase and for decode the length of the cache."""

    prompt: str | None = None
    phase: str = "prefill"
    batch: int = 1
    seq: int | None = None
    context: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class ZooModel:
    """One row of `spatialc models`."""

    name: str
    summary: str
    weights: str
    build: Callable[[Request], Case]


def _seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The module with random weights: matrices of spread 1/sqrt(fan-in), embeddings of spread 1, so that every part matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make()
        with torch.no_grad():
            for part in module.modules():
                for parameter in part.parameters(recurse=False):
                    if isinstance(part, nn.Embedding):
                        parameter.normal_(0, 1.0)
                    elif parameter.dim() >= 2:
                        parameter.normal_(0, parameter[0].numel() ** -0.5)
    return module.eval()


def _ids(request: Request, vocabulary: int, tokenizer: Tokenizer | None, prompt: str | None, limit: int) -> torch.Tensor:
    """Token ids [B, S]: the prompt if there is one, else random ids of length `seq`."""
    text = request.prompt if request.prompt is not None else (prompt if request.seq is None else None)
    if text is not None and tokenizer is None:
        raise BadInput("this model has random weights and no tokenizer: use --seq instead of --prompt")
    if text is not None and tokenizer is not None:
        ids = tokenizer.encode(text)
        if not ids:
            raise BadInput("the prompt is empty; give at least one token")
        if request.seq is not None:
            raise BadInput("give a prompt or --seq, not both")
        rows = torch.tensor([ids] * request.batch)
    else:
        generator = torch.Generator().manual_seed(request.seed)
        rows = torch.randint(0, vocabulary, (request.batch, request.seq or 16), generator=generator)
    if rows.shape[1] > limit:
        raise BadInput(f"{rows.shape[1]} tokens are more than the model's context of {limit}")
    return rows


def _language(
    name: str,
    module: nn.Module,
    request: Request,
    vocabulary: int,
    limit: int,
    tokenizer: Tokenizer | None = None,
    prompt: str | None = None,
) -> Case:
    if request.phase == "decode":
        if not isinstance(module, Llama):
            raise BadInput(f"{name} has no decode step with a cache; Llama-style models have (tiny, llama-tiny, smollm2-135m)")
        context = request.context or min(64, limit)
        if context > limit:
            raise BadInput(f"a cache of {context} positions is longer than the model's context of {limit}")
        step = LlamaDecode(module, request.batch, context).eval()
        text = request.prompt if request.prompt is not None else prompt
        token = tokenizer.encode(text)[0] if tokenizer is not None and text else 1
        args = (torch.full((request.batch, 1), token), torch.zeros(1, dtype=torch.long))
        return Case(name, step, args, phase="decode", batch=request.batch, seq=1, context=context, tokens=True, tokenizer=tokenizer)
    ids = _ids(request, vocabulary, tokenizer, prompt, limit)
    return Case(name, module, (ids,), batch=request.batch, seq=ids.shape[1], context=ids.shape[1], tokens=True, tokenizer=tokenizer)


def _tiny(request: Request) -> Case:
    config = tiny_model.TINY
    tokenizer = tiny_model.CharacterTokenizer()
    return _language("tiny", tiny_model.load(), request, config.vocabulary, config.context, tokenizer, "three plus four is ")


def _smollm2(request: Request) -> Case:
    from .pretrained import SMOLLM2_CONFIG, load_smollm2

    model, tokenizer = load_smollm2()
    return _language(
        "smollm2-135m", model, request, SMOLLM2_CONFIG.vocabulary, SMOLLM2_CONFIG.context, tokenizer, "The capital of France is"
    )


def _minilm(request: Request) -> Case:
    from .pretrained import MINILM_CONFIG, load_minilm

    _prefill_only("minilm", request)
    model, tokenizer = load_minilm()
    ids = _ids(request, MINILM_CONFIG.vocabulary, tokenizer, "Spatial arrays keep the weights where the work is.", 256)
    return Case("minilm", model, (ids,), batch=request.batch, seq=ids.shape[1], context=ids.shape[1], tokenizer=tokenizer)


def _gpt2_small(request: Request) -> Case:
    config = GPT2Config()
    return _language("gpt2-small", _seeded(lambda: GPT2(config), 0), request, config.vocabulary, config.context)


def _llama_tiny(request: Request) -> Case:
    return _language("llama-tiny", _seeded(lambda: Llama(LLAMA_TINY), 0), request, LLAMA_TINY.vocabulary, LLAMA_TINY.context)


def _bert_base(request: Request) -> Case:
    _prefill_only("bert-base", request)
    config = BertConfig()
    ids = _ids(request, config.vocabulary, None, None, config.context)
    return Case("bert-base", _seeded(lambda: Bert(config), 0), (ids,), batch=request.batch, seq=ids.shape[1], context=ids.shape[1])


def _vit_base(request: Request) -> Case:
    _prefill_only("vit-base", request)
    if request.prompt is not None or request.seq is not None:
        raise BadInput("vit-base takes an image of 224 x 224 pixels: neither --prompt nor --seq applies")
    config = ViTConfig()
    generator = torch.Generator().manual_seed(request.seed)
    pixels = torch.randn(request.batch, 3, config.image, config.image, generator=generator)
    seq = (config.image // config.patch) ** 2 + 1
    return Case("vit-base", _seeded(lambda: ViT(config), 0), (pixels,), batch=request.batch, seq=seq, context=seq, classes=True)


def _prefill_only(name: str, request: Request) -> None:
    if request.phase != "prefill":
        raise BadInput(f"{name} is an encoder: it has no decode phase")


MODELS: dict[str, ZooModel] = {
    model.name: model
    for model in (
        ZooModel("tiny", "2-layer character Llama that adds small numbers in words", "trained, ships inside the package", _tiny),
        ZooModel("smollm2-135m", "SmolLM2-135M-Instruct, 30 layers, width 576", "trained, 93 MB download (extra: hf)", _smollm2),
        ZooModel("minilm", "all-MiniLM-L6-v2 sentence encoder, 6 layers, width 384", "trained, 84 MB download (extra: hf)", _minilm),
        ZooModel("llama-tiny", "4-layer Llama, width 128, with a decode step", "random, fixed seed", _llama_tiny),
        ZooModel("gpt2-small", "GPT-2-small, 12 layers, width 768", "random, fixed seed", _gpt2_small),
        ZooModel("bert-base", "BERT-base encoder, 12 layers, width 768", "random, fixed seed", _bert_base),
        ZooModel("vit-base", "ViT-base/16 image classifier, 12 layers, width 768", "random, fixed seed", _vit_base),
    )
}


def build(name: str, request: Request) -> Case:
    """The model of that name with inputs for `request`. Raises BadInput for an unknown name or a request that does not fit it."""
    if name not in MODELS:
        raise BadInput(f"there is no model {name!r}; the zoo has {', '.join(MODELS)}")
    return MODELS[name].build(request)
