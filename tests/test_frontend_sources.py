"""Where models come from: factories, exported programs, folders of a model library, GGUF and safetensors files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from spatialc.errors import BadInput
from spatialc.frontend import lower_module
from spatialc.frontend.sources import resolve
from spatialc.frontend.weights import FORMATS, Block, GgufFile, attach_blocks, decode, read_safetensors
from spatialc.ir.interpret import interpret

FACTORY = """
import torch

class Net(torch.nn.Module):
    def forward(self, x, *, y):
        return x + y

def make():
    return Net(), (torch.ones(3),), {"y": torch.ones(3)}

def wrong():
    return Net()
"""


def test_a_factory_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(FACTORY)
    module, args, kwargs = resolve(f"{path}:make")
    lowered = lower_module(module, args, kwargs)
    assert [b.path for b in lowered.input_bindings] == ["args[0]", "kwargs['y']"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{folder}/none.py:make", "there is no file {folder}/none.py"),
        ("{folder}/net.py", "{folder}/net.py needs the function that makes the model: {folder}/net.py:factory"),
        ("{folder}/net.py:absent", "{folder}/net.py has no function absent"),
        ("{folder}/net.py:not ok", "'not ok' is no function name: write {folder}/net.py:factory"),
        ("{folder}/net.py:wrong", "{folder}/net.py:wrong must return (module, args, kwargs), not Net"),
        ("{folder}/none.pt2", "there is no file {folder}/none.pt2"),
        ("{folder}/none.gguf", "there is no file {folder}/none.gguf"),
        ("{folder}", "{folder} holds no config.json and 0 GGUF files; a model folder has one of them"),
        (
            "{folder}/none",
            "{folder}/none is no model: give file.py:factory, a .pt2 or .gguf file, a model folder or a Hugging Face id",
        ),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "net.py").write_text(FACTORY)
    with pytest.raises(BadInput) as error:
        resolve(name.format(folder=tmp_path))
    assert str(error.value) == message.format(folder=tmp_path)


def test_a_damaged_program_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "bad.pt2"
    path.write_bytes(b"not a zip")
    with pytest.raises(BadInput, match="cannot be read as an exported program"):
        resolve(str(path))


class Accumulate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("total", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total += self.linear(x).sum(0)
        return torch.relu(self.total)


def test_an_exported_program_runs_and_lowers(tmp_path: Path) -> None:
    x = torch.randn(2, 4)
    torch.export.save(torch.export.export(Accumulate(), (x,), strict=False), tmp_path / "net.pt2")
    module, args, kwargs = resolve(str(tmp_path / "net.pt2"))
    lowered = lower_module(module, args, kwargs)
    (got,), states = interpret(lowered.graph, {"x": args[0].numpy()}, store=lowered.store)
    with torch.no_grad():
        want = module.eval()(*args, **kwargs)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-6, atol=1e-6)
    assert list(states) == ["total"] and [b.numel() for b in module.buffers()] == [3]


def test_the_library_is_asked_for_only_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInput, match=r"needs the transformers library: pip install 'spatialc\[hf\]'"):
        resolve(str(tmp_path))


def test_importing_the_frontend_loads_no_model_library() -> None:
    import subprocess

    loaded = "any(m.split('.')[0] in ('transformers', 'gguf') for m in sys.modules)"
    code = f"import sys, spatialc.frontend, spatialc.frontend.sources; print({loaded})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("llama")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, max_position_embeddings=32,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_library_folder(llama_folder: Path) -> None:
    module, args, kwargs = resolve(str(llama_folder), batch=2, seq=5, seed=3)
    assert type(module).__name__ == "LlamaForCausalLM" and args == () and kwargs["input_ids"].shape == (2, 5)
    again = resolve(str(llama_folder), batch=2, seq=5, seed=3)[2]
    assert torch.equal(kwargs["input_ids"], again["input_ids"])
    lowered = lower_module(module, args, kwargs)
    assert lowered.paths == {"input_ids": "kwargs['input_ids']", "output_0": "out.logits"} and lowered.vocabulary_axis
    (got,), _ = interpret(lowered.graph, {"input_ids": kwargs["input_ids"].numpy()}, store=lowered.store)
    with torch.no_grad():
        np.testing.assert_allclose(got, module(**kwargs).logits.numpy(), rtol=1e-4, atol=1e-5)


def test_an_unreachable_id_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match=r"nobody/nothing cannot be loaded: .*must be in the cache or reachable"):
        resolve("nobody/nothing")


# -- weights -----------------------------------------------------------------------------------------------------------------------


def test_safetensors_are_mapped_and_damage_is_reported(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}, path)
    tensors = read_safetensors(path)
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3)) and tensors["b"].dtype is torch.bfloat16
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(BadInput, match=r"w\.safetensors cannot be read as safetensors"):
        read_safetensors(path)


def packed(gguf: Any, name: str, rows: int, columns: int, seed: int) -> np.ndarray:
    """Random bytes of a block format, with scales that are finite."""
    kind = FORMATS[name]
    random = np.random.default_rng(seed)
    if name in ("q8_0", "q4_0", "q4_1"):
        return gguf.quants.quantize(random.standard_normal((rows, columns)).astype(np.float32), gguf.GGMLQuantizationType[name.upper()])
    raw = random.integers(0, 256, (rows, columns // kind.values, kind.bytes), dtype=np.uint8)
    raw[..., -2:] = np.full((rows, columns // kind.values, 1), 0.01, np.float16).view(np.uint8)
    return raw.reshape(rows, -1)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_block_planes_decode_as_the_library_does(name: str) -> None:
    gguf = pytest.importorskip("gguf")
    raw = packed(gguf, name, 5, 512, 1)
    block = Block(name, raw)
    want = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[name.upper()])
    assert block.shape == (5, 512) == block.planes()["quants"].shape
    np.testing.assert_array_equal(block.values(), want)
    turned = Block(name, raw, np.array([4, 0, 3, 1, 2]))
    np.testing.assert_array_equal(decode(turned.planes()), want[[4, 0, 3, 1, 2]])


def test_gguf_weights_keep_their_stored_form(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "w.gguf"
    writer = gguf.GGUFWriter(path, "test")
    raw = packed(gguf, "q4_1", 6, 64, 2)
    writer.add_tensor("blk.0.w", raw, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    writer.add_tensor("norm", np.arange(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(path)
    assert file.names == ("blk.0.w", "norm") and file.shape("blk.0.w") == (6, 64) and file.block("norm") is None
    np.testing.assert_array_equal(file.get("norm"), [0.0, 1.0, 2.0, 3.0])
    order = [5, 3, 1, 4, 2, 0]
    module = nn.Sequential(nn.Linear(64, 6, bias=False), nn.Linear(6, 64, bias=False), nn.Linear(64, 6, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.from_numpy(file.get("blk.0.w")[order]))
        module[2].weight.copy_(torch.from_numpy(file.get("blk.0.w")))
        module[2].weight[1, 1] += 1e-6  # no longer what the file holds
    assert attach_blocks(module, file) == 1
    lowered = lower_module(module, (torch.randn(2, 64),))
    storages = {n.ref.key: n.ref.storage for n in lowered.graph.constants}
    assert storages == {"0.weight": "q4_1", "1.weight": "dense", "2.weight": "dense"}
    np.testing.assert_array_equal(decode(lowered.store.block("0.weight")), lowered.store.get("0.weight"))


def test_a_damaged_gguf_is_bad_input(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "w.gguf").write_bytes(b"GGUF")
    with pytest.raises(BadInput, match=r"w\.gguf cannot be read as GGUF"):
        GgufFile(tmp_path / "w.gguf")
