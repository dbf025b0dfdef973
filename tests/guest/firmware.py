"""Shell commands for a guest with UEFI variables and a TPM, and what it answers to them."""

from __future__ import annotations

from tests.guest.console import GuestConsole

# A variable that is there is an immutable file: so each token has one of its own, and the last one counts.
_VARIABLES = "/sys/firmware/efi/efivars/Token"
_GUID = "6d2fd1a6-3b8a-4b7e-9f0a-5c1b2a3d4e5f"
_ATTRIBUTES = "\\x07\\x00\\x00\\x00"  # non-volatile, for boot services and the running system

# TPM 2.0 commands (TCG's "TPM 2.0 Library", part 3), all with an empty password
_PASSWORD = "00000009" "40000009" "0000" "00" "0000"
_OWNER, _INDEX, _PCR = "40000001", "01800001", "00000010"
_ATTRIBUTES_OF_INDEX = "02060006"  # the owner and who has the (empty) password may read and write; no lock-out


class Firmware:
    """The UEFI variables and the TPM of a guest, as seen from inside."""

    def __init__(self, console: GuestConsole) -> None:
        self._console = console

    def set_variable(self, text: str) -> None:
        """Write a UEFI variable of ours."""
        number = self._variables()
        self._console.check(f"printf '{_ATTRIBUTES}{text}' > {_VARIABLES}{number}-{_GUID}")

    def variable(self) -> str:
        """Read it."""
        return self._console.check(f"tail -c +5 {_VARIABLES}{self._variables() - 1}-{_GUID}")

    def _variables(self) -> int:
        return int(self._console.check(f"ls {_VARIABLES}* 2>/dev/null | wc -l"))

    def make_index(self) -> None:
        """Make the place in the TPM's persistent memory where `put` writes."""
        public = _INDEX + "000b" + _ATTRIBUTES_OF_INDEX + "0000" + "0008"
        self._tpm("0000012a", _OWNER + _PASSWORD + "0000" + f"{len(public) // 2:04x}" + public)

    def put(self, text: str) -> None:
        """Write three letters to the TPM's persistent memory."""
        self._tpm("00000137", _OWNER + _INDEX + _PASSWORD + "0003" + text.encode().hex() + "0000")

    def kept(self) -> str:
        """Read them."""
        answer = self._tpm("0000014e", _OWNER + _INDEX + _PASSWORD + "0003" + "0000")
        return bytes.fromhex(answer[32:38]).decode()

    def extend(self) -> None:
        """Change a register that only lives as long as the TPM is on."""
        self._tpm("00000182", _PCR + _PASSWORD + "00000001" + "000b" + "ab" * 32)

    def register(self) -> str:
        """Read it."""
        return self._console.check("cat /sys/class/tpm/tpm0/pcr-sha256/16")

    def _tpm(self, command: str, rest: str) -> str:
        message = "8002" + f"{10 + len(rest) // 2:08x}" + command + rest
        octets = "".join(f"\\x{message[at : at + 2]}" for at in range(0, len(message), 2))
        answer = self._console.check(
            f"exec 3<>/dev/tpm0; printf '{octets}' >&3; "
            "dd bs=4096 count=1 2>/dev/null <&3 | od -An -v -tx1 | tr -d ' \\n'"
        )
        assert answer[12:20] == "00000000", f"the TPM answered {answer}"
        return answer
