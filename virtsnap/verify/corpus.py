"""A folder of command lines becomes figures: how many can be started here, how many show no difference."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from virtsnap.command_line.shell_words import parse_shell_text
from virtsnap.convert.head.machines import arch_of_emulator
from virtsnap.errors import VirtsnapError
from virtsnap.verify.compare import Comparison
from virtsnap.verify.stand_ins import StandIn
from virtsnap.verify.verify import Emulator, NotStartedError, find_emulator, verify_command_line

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")

# same: started, no difference. not-started: QEMU refuses argv. refused: libvirt refuses the domain.
Result = Literal["same", "different", "refused", "not-started"]


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """What became of one command line. `message` is QEMU's or libvirt's own where there is no comparison."""

    name: str
    result: Result
    message: str = ""
    comparison: Comparison | None = None
    stand_ins: tuple[StandIn, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Give it as plain values."""
        differences = self.comparison.differences if self.comparison else ()
        expected = self.comparison.expected if self.comparison else ()
        return {
            "name": self.name, "result": self.result, "message": self.message,
            "differences": [asdict(difference) for difference in differences],
            "expected": [asdict(difference) for difference in expected],
            "stand_ins": [asdict(stand_in) for stand_in in self.stand_ins],
        }


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The shares that the goals name. A domain that libvirt refuses counts as started and different."""

    total: int
    started: int
    same: int

    @property
    def started_share(self) -> float:
        """The share of command lines that this host's QEMU starts."""
        return self.started / self.total if self.total else 0.0

    @property
    def same_share(self) -> float:
        """The share of the started ones without a difference."""
        return self.same / self.started if self.started else 0.0


def read_folder(folder: Path, arch: str = "x86_64") -> Iterator[tuple[str, tuple[str, ...]]]:
    """Give (name, argv) of each *.args file whose emulator is for an architecture; `kvm` is this host's."""
    for file in sorted(folder.glob("*.args")):
        words = parse_shell_text(file.read_text(encoding="utf-8"))
        if arch_of_emulator(words.argv[0]) == arch:
            yield file.stem, words.argv


def verify_folder(
    cases: Sequence[tuple[str, Sequence[str]]],
    *,
    uri: str,
    for_libvirt: tuple[int, int] | None,
    parallel: int = 2,
    tell: Callable[[CaseResult], None] = lambda _: None,
) -> list[CaseResult]:
    """Verify many command lines; a failure is a result. `tell` is called with each as it comes."""
    if not cases:
        return []
    emulator = find_emulator(cases[0][1][0])

    # Command lines of one origin share a UUID, and two domains cannot.
    by_uuid: defaultdict[str, Lock] = defaultdict(Lock)

    def one(case: tuple[str, Sequence[str]]) -> CaseResult:
        found = _UUID.search(" ".join(case[1]))
        with by_uuid[found[0].lower() if found else case[0]]:
            return verified(case)

    def verified(case: tuple[str, Sequence[str]]) -> CaseResult:
        result = _verify_one(case, uri=uri, for_libvirt=for_libvirt, emulator=emulator)
        tell(result)
        return result

    with ThreadPoolExecutor(max_workers=parallel) as pool:
        return list(pool.map(one, cases))


def _verify_one(
    case: tuple[str, Sequence[str]], *, uri: str, for_libvirt: tuple[int, int] | None, emulator: Emulator
) -> CaseResult:
    name, argv = case
    try:
        verdict = verify_command_line(
            argv, uri=uri, base=Path("/"), for_libvirt=for_libvirt, emulator=emulator
        )
    except NotStartedError as exc:
        return CaseResult(name=name, result="not-started", message=exc.message, stand_ins=exc.stand_ins)
    except Exception as exc:  # a converter that falls is a finding, and the others go on
        message = exc.message if isinstance(exc, VirtsnapError) else f"{type(exc).__name__}: {exc}"
        return CaseResult(name=name, result="refused", message=message)
    return CaseResult(
        name=name, result="same" if verdict.comparison.same else "different", comparison=verdict.comparison,
        stand_ins=verdict.stand_ins,
    )


def count(results: Sequence[CaseResult]) -> Figures:
    """Count the results."""
    started = [result for result in results if result.result != "not-started"]
    return Figures(
        total=len(results), started=len(started), same=sum(result.result == "same" for result in started)
    )
