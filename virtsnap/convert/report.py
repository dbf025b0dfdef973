"""The account of a conversion as the report that DESIGN.md defines: JSON, an entry for every option."""

from __future__ import annotations

from typing import Any

from virtsnap.convert.draft import Draft
from virtsnap.convert.host_access import host_access
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.unwritten.readconfig import options_inside


def write_report(draft: Draft) -> dict[str, Any]:
    """Give the report: every index of argv once, every key of every option."""
    tree = draft.root.getroottree()
    emulator = draft.devices.find("emulator")
    entries: list[dict[str, Any]] = [
        {
            "argv": [0, 0],
            "text": draft.command_line.emulator,
            "outcome": Outcome.MAPPED.word,
            "xpath": [] if emulator is None else [tree.getpath(emulator)],
            "note": None,
            "parts": [],
        }
    ]
    entries += [
        _entry(draft, word) for word in draft.words
        if not word.implied and word.option.config is None
    ]
    return {"schema": 1, "arguments": entries, "warnings": draft.warnings}


def _entry(draft: Draft, word: Word) -> dict[str, Any]:
    tree = draft.root.getroottree()
    inside = [element for element in word.elements if element.getroottree().getroot() is draft.root]
    remarks = [host_access(each) for each in (word, *options_inside(draft, word))]
    remark = "; ".join(filter(None, remarks)) or None
    return {
        "argv": [word.option.first, word.option.last],
        "text": word.option.text,
        "outcome": word.outcome.word,
        "xpath": [tree.getpath(element) for element in inside],
        "note": "; ".join(word.notes) or None,
        "parts": [
            {"key": key, "outcome": (Outcome.PASSTHROUGH if claim is None else claim.outcome).word}
            for key, claim in word.parts()
        ],
        **({} if remark is None else {"host": remark}),
    }
