"""All targets: importing this module fills `tests.fuzz.target.TARGETS`."""

from tests.fuzz.targets import calls, clear, files, gates, hosts, owners, sealed, system, texts

__all__ = ["calls", "clear", "files", "gates", "hosts", "owners", "sealed", "system", "texts"]
