"""`make verify-corpus CORPUS=folder`: verify every x86_64 command line of a folder on a libvirtd of our own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.host.private_libvirtd import PrivateLibvirtd
from virtsnap.host.versions import connected_version
from virtsnap.verify.corpus import CaseResult, count, read_folder, verify_folder

OUTPUT = Path(__file__).resolve().parents[2] / ".cache" / "verify-corpus.json"


def tell(case: CaseResult) -> None:
    print(f"{case.result:12} {case.name}")
    for line in case.message.splitlines()[:3]:
        print(f"             {line}")
    if case.comparison is not None:
        for found in case.comparison.differences[:8]:
            print(f"             {found.subject}, {found.where}: {found.argv} | {found.domain}")
        if len(case.comparison.differences) > 8:
            print(f"             and {len(case.comparison.differences) - 8} more")
    sys.stdout.flush()


def main(folder: str, *patterns: str) -> int:
    cases = [case for case in read_folder(Path(folder)) if not patterns or any(p in case[0] for p in patterns)]
    with PrivateLibvirtd() as host:
        results = verify_folder(cases, uri=host.uri, for_libvirt=connected_version(host.uri), tell=tell)
    figures = count(results)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps([result.as_json() for result in results], indent=1, ensure_ascii=False) + "\n")
    print(
        f"{figures.total} command lines; started {figures.started} ({figures.started_share:.0%});"
        f" of these without a difference {figures.same} ({figures.same_share:.0%}); details in {OUTPUT}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
