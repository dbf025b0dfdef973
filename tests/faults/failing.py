"""Run a verb in which one of the host's methods fails once: python -m tests.faults.failing METHOD WORDS…"""

from __future__ import annotations

import sys
from typing import Any

from virtsnap.cli.main import main
from virtsnap.errors import HypervisorError
from virtsnap.host import Domain, Host

if __name__ == "__main__":
    method, *words = sys.argv[1:]
    owner: Any = Host if hasattr(Host, method) else Domain
    real = getattr(owner, method)

    def fail_once(*args: Any, **options: Any) -> Any:
        """Fail, and let the undo's calls through."""
        setattr(owner, method, real)
        raise HypervisorError("injected")

    setattr(owner, method, fail_once)
    sys.exit(main(words))
