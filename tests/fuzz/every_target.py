"""All targets: importing this module fills `tests.fuzz.target.TARGETS`."""

from tests.fuzz.targets import clear, files, sealed, system, texts

__all__ = ["clear", "files", "sealed", "system", "texts"]
