"""The guest answers what it is asked, once, whatever else happens on the serial line."""

from __future__ import annotations

import pytest

from tests.guest.console import GuestConsole, GuestSilentError
from tests.host.guests import GuestFarm


def test_guest_answers_output_and_status(farm: GuestFarm) -> None:
    guest = farm.running_guest()
    assert guest.console.run("cat /mnt/hello.txt; echo oops >&2; exit 3") == (
        "This is the test guest's disk.\noops\n",
        3,
    )
    assert guest.console.run("printf 'no newline'") == ("no newline", 0)
    assert guest.console.run(":") == ("", 0)
    long_text = "x" * 3000
    assert guest.console.check(f"echo {long_text}") == long_text
    assert len(guest.console.check("seq 1 20000").splitlines()) == 20000


def test_kernel_messages_in_between_leave_an_answer_whole(farm: GuestFarm) -> None:
    console = farm.running_guest().console
    console.check("echo 7 > /proc/sys/kernel/printk")
    console.check("(for i in $(seq 1 300); do echo '<1>noise' > /dev/kmsg; done) >/dev/null 2>&1 &")
    for _ in range(5):
        assert console.check("seq 1 500").splitlines()[-1] == "500"
    assert b"noise" in console.transcript


def test_second_connection_goes_on_where_the_first_stopped(farm: GuestFarm) -> None:
    guest = farm.running_guest()
    guest.console.check("echo token > /ram/token")
    with pytest.raises(GuestSilentError):
        guest.console.run("sleep 1; echo run >> /ram/count", timeout_s=0.3)
    guest.console.close()
    with GuestConsole(guest.folder / "serial") as again:
        assert again.check("cat /ram/token") == "token"
        assert again.check("wc -l < /ram/count") == "1"


def test_console_on_a_pty_is_found_again_in_a_new_qemu(farm: GuestFarm) -> None:
    guest = farm.running_guest(console="pty")
    assert guest.console.check("cat /mnt/hello.txt") == "This is the test guest's disk."
    guest.domain.destroy()
    guest.domain.create()
    assert guest.console.check("echo a new QEMU", timeout_s=90) == "a new QEMU"
