"""The command `zsemo`: `main` runs it, as `from zsemo_kit.cli import main` always did."""

from .command import app, main

__all__ = ["app", "main"]
