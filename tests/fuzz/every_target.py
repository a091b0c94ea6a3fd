"""All targets: importing this module fills `tests.fuzz.target.TARGETS`."""

from tests.fuzz.targets import clear, files, owners, sealed, system, texts

__all__ = ["clear", "files", "owners", "sealed", "system", "texts"]
