"""From what a user names to a module and its inputs: `file.py:factory`, a `.pt2` program, a Hugging Face id or local folder, a GGUF file.

User code runs only when the user named its file. Nothing is downloaded without the `transformers` library's own consent (its cache and
its offline switches hold), and every failure is one sentence.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import BadInput
from .export import Exported
from .weights import GgufFile, attach_blocks

Source = tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]

_DEFAULT_LENGTH = 128


def resolve(model: str, *, prompt: str | None = None, batch: int = 1, seq: int | None = None, seed: int = 0) -> Source:
    """`(module, args, kwargs)` for a MODEL of the command line that is not a name of the zoo.

    `prompt`, `batch` and `seq` shape the inputs of language models; random ids come from `seed`. Raises BadInput where nothing of that
    name can be loaded, with the reason and what to do.
    """
    path, _, factory = model.rpartition(":")
    if path.endswith(".py"):
        return _from_factory(Path(path), factory)
    if model.endswith(".py"):
        raise BadInput(f"{model} needs the function that makes the model: {model}:factory")
    if model.endswith(".pt2"):
        return _from_program(Path(model))
    if model.endswith(".gguf"):
        file = Path(model)
        if not file.is_file():
            raise BadInput(f"there is no file {model}")
        return _from_library(str(file.parent), file, prompt, batch, seq, seed)
    folder = Path(model)
    if folder.is_dir():
        ggufs = sorted(folder.glob("*.gguf"))
        if not (folder / "config.json").is_file() and len(ggufs) != 1:
            raise BadInput(f"{model} holds no config.json and {len(ggufs)} GGUF files; a model folder has one of them")
        gguf = ggufs[0] if ggufs and not list(folder.glob("*.safetensors")) else None
        return _from_library(model, gguf, prompt, batch, seq, seed)
    if folder.exists() or model.startswith((".", "/", "~")):
        raise BadInput(f"{model} is no model: give file.py:factory, a .pt2 or .gguf file, a model folder or a Hugging Face id")
    return _from_library(model, None, prompt, batch, seq, seed)


def _from_factory(path: Path, name: str) -> Source:
    if not path.is_file():
        raise BadInput(f"there is no file {path}")
    if not name.isidentifier():
        raise BadInput(f"{name!r} is no function name: write {path}:factory")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{path} cannot be loaded as Python")
    code = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, code)  # so that classes of the file can be found by name
    spec.loader.exec_module(code)
    function = getattr(code, name, None)
    if not callable(function):
        raise BadInput(f"{path} has no function {name}")
    made = function()
    if not (isinstance(made, tuple) and len(made) == 3 and isinstance(made[0], torch.nn.Module) and isinstance(made[2], Mapping)):
        raise BadInput(f"{path}:{name} must return (module, args, kwargs), not {type(made).__name__}")
    module, args, kwargs = made
    return module, tuple(args), dict(kwargs)


def _from_program(path: Path) -> Source:
    if not path.is_file():
        raise BadInput(f"there is no file {path}")
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise BadInput(f"{path} cannot be read as an exported program: {str(error).splitlines()[0] if str(error) else error!r}") from error
    if program.example_inputs is None:
        raise BadInput(f"{path} carries no example inputs: export it with torch.export.save from a program that has them")
    args, kwargs = program.example_inputs
    return Exported(program), tuple(args), dict(kwargs)


# -- the transformers library -----------------------------------------------------------------------------------------------------


def _transformers(model: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise BadInput(f"{model} needs the transformers library: pip install 'spatialc[hf]'") from error
    return transformers


def _from_library(model: str, gguf: Path | None, prompt: str | None, batch: int, seq: int | None, seed: int) -> Source:
    library = _transformers(model)
    extra = {} if gguf is None else {"gguf_file": gguf.name}
    try:
        config = library.AutoConfig.from_pretrained(model, **extra)
        kind = _model_class(library, config)
        module = kind.from_pretrained(model, dtype=torch.float32, **extra)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        advice = "a Hugging Face id must be in the cache or reachable, a folder needs config.json and weights"
        raise BadInput(f"{model} cannot be loaded: {first} ({advice})") from error
    module.eval()
    if gguf is not None:
        attach_blocks(module, GgufFile(gguf))
    for part in (config, module.config):
        if hasattr(part, "use_cache"):
            part.use_cache = False
    return module, (), _inputs(library, model, module, extra, prompt, batch, seq, seed)


def _model_class(library: Any, config: Any) -> Any:
    """The class that the configuration names, else the causal or plain class of its type."""
    for name in getattr(config, "architectures", None) or ():
        found = getattr(library, name, None)
        if found is not None:
            return found
    try:
        library.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except KeyError:
        return library.AutoModel
    return library.AutoModelForCausalLM


def _inputs(
    library: Any, model: str, module: Any, extra: Mapping[str, Any], prompt: str | None, batch: int, seq: int | None, seed: int
) -> dict[str, Any]:
    """Keyword inputs of one forward pass."""
    config = module.config
    main = getattr(module, "main_input_name", "input_ids")
    generator = torch.Generator().manual_seed(seed)
    if main == "pixel_values":
        vision = getattr(config, "vision_config", config)
        size = getattr(vision, "image_size", 224)
        height, width = (size, size) if isinstance(size, int) else size
        return {main: torch.randn(batch, getattr(vision, "num_channels", 3), height, width, generator=generator)}
    if main != "input_ids":
        raise BadInput(f"{model} takes {main}, whose shape is the user's choice: write a factory and name it file.py:factory")
    text = getattr(config, "text_config", config)
    inputs: dict[str, Any] = {}
    if prompt is not None:
        ids = _tokenised(library, model, extra, prompt)
        inputs["input_ids"] = ids.expand(batch, -1).contiguous()
    else:
        longest = getattr(text, "max_position_embeddings", None) or _DEFAULT_LENGTH
        length = seq or min(_DEFAULT_LENGTH, longest)
        inputs["input_ids"] = torch.randint(0, text.vocab_size, (batch, length), generator=generator)
    if getattr(config, "is_encoder_decoder", False):
        start = getattr(config, "decoder_start_token_id", None) or 0
        inputs["decoder_input_ids"] = torch.full((batch, 1), start)
    return inputs


def _tokenised(library: Any, model: str, extra: Mapping[str, Any], prompt: str) -> torch.Tensor:
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(model, **extra)
    except (OSError, ValueError, ImportError, KeyError) as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise BadInput(f"{model} has no tokenizer for a prompt: {first}; use --seq instead") from error
    ids: torch.Tensor = tokenizer(prompt, return_tensors="pt")["input_ids"]
    return ids
