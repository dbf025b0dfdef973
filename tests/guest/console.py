"""The test guest's console: `virtsnap bench` asks its guests in the same way, and has the code."""

from virtsnap.bench.console import GuestConsole, GuestSilentError

__all__ = ["GuestConsole", "GuestSilentError"]
