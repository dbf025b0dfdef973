"""What QEMU is told before and after it sends its state to us; the answers are played."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

import pytest
from pytest_mock import MockerFixture

from virtsnap.errors import HypervisorError
from virtsnap.host.monitor import Monitor

Asked = list[tuple[str, dict[str, Any] | None]]
# As somebody may have set them: the last is what `sending_state` sets as well
SET = {"max-bandwidth": 5 << 20, "downtime-limit": 0}


@pytest.fixture
def asked(mocker: MockerFixture) -> Asked:
    """Every command in order; a migration is cancelled by the second look at it."""
    found: Asked = []

    def ask(
        _: Monitor, command: str, arguments: dict[str, Any] | None = None, *, files: Sequence[int] = ()
    ) -> dict[str, Any]:
        found.append((command, arguments))
        if command == "add-fd":
            assert arguments is not None
            os.write(files[0], b"QEVM\0\0\0\3")
            return {"fdset-id": arguments["fdset-id"]}
        looks = sum(each == "query-migrate" for each, _ in found)
        return {**SET, "other": 1} if command == "query-migrate-parameters" else {
            "status": "cancelling" if looks == 1 else "cancelled"
        }

    mocker.patch.object(Monitor, "_ask", ask)
    return found


def return_path(on: bool) -> tuple[str, dict[str, Any]]:
    return "migrate-set-capabilities", {"capabilities": [{"capability": "return-path", "state": on}]}


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_as_somebody_had_set_it_when_the_block_is_over(asked: Asked, fails: bool) -> None:
    ours: socket.socket | None = None
    try:
        with Monitor(None, "sut").sending_state() as ours:
            assert asked[-1] == ("migrate", {"uri": "fd:virtsnap"})
            assert asked[1:3] == [
                return_path(True),
                ("migrate-set-parameters", {"max-bandwidth": (1 << 63) - 1, "downtime-limit": 0}),
            ]
            asked.clear()
            if fails:
                raise HypervisorError("x")
    except HypervisorError:
        assert fails
    assert ours is not None
    assert ours.fileno() == -1
    assert asked == [
        ("migrate_cancel", None), ("query-migrate", None), ("query-migrate", None),
        ("migrate-set-parameters", SET), return_path(False),
    ]


def test_what_a_killed_process_left_becomes_qemus_default(asked: Asked) -> None:
    Monitor(None, "sut").forget_peer()
    assert asked[-1] == ("migrate-set-parameters", {"max-bandwidth": 128 << 20, "downtime-limit": 300})


def test_the_set_of_descriptors_is_not_one_of_libvirts_and_says_whose_it_is(asked: Asked) -> None:
    """libvirtd 11.3 dies when it looks through sets of which one says nothing."""
    assert Monitor(None, "sut").device_state() == b"QEVM\0\0\0\3"
    (added, said), saved, removed = asked
    assert added == "add-fd"
    assert said is not None
    assert said["opaque"]
    number = said["fdset-id"]
    assert number > 1_000_000
    assert saved == ("xen-save-devices-state", {"filename": f"/dev/fdset/{number}", "live": False})
    assert removed == ("remove-fd", {"fdset-id": number})
