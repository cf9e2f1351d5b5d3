"""The text listing of a program, whatever its machine: one line a burst, ordered by cycle; it parses back to the same program."""

from __future__ import annotations

from importlib import import_module

from .catalog import find_target
from .program import Program


def listing_of(program: Program) -> str:
    """The listing of `program`. Raises BadInput for an unknown target."""
    return str(import_module(f".{find_target(program.target).name}.listing", __package__).to_text(program))


def parse_listing(text: str, program: Program) -> Program:
    """The program that `text` lists; images, machine and bindings, which a listing does not hold, come from `program`."""
    parsed: Program = import_module(f".{find_target(program.target).name}.listing", __package__).from_text(text, program)
    return parsed
