"""Environment words before the emulator: what they change stands in the domain, what is left is QEMU's still.

libvirt starts QEMU in an environment of its own. Words that it sets itself, and those that belong to
the user's session, are not passed on; audio, displays and clock read theirs; any other
becomes <qemu:env>.
"""

from __future__ import annotations

import re

from lxml import etree

from virtsnap.convert.draft import Draft
from virtsnap.domain_xml.templates import Element

# Set by libvirt itself (virCommandAddEnvPassCommon(), qemuBuildCommandLine() and its parts), or of the session.
NOT_PASSED = re.compile(
    r"LC_[A-Z]+|LANG|LANGUAGE|PATH|HOME|USER|LOGNAME|SHELL|PWD|OLDPWD|SHLVL|TERM|TMPDIR|XDG_[A-Z_]+|DBUS_[A-Z_]+"
    r"|DISPLAY|XAUTHORITY|WAYLAND_DISPLAY|SASL_CONF_PATH|QEMU_AUDIO_DRV|SDL_AUDIODRIVER|PIPEWIRE_RUNTIME_DIR|TZ"
)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def value_of(draft: Draft, name: str) -> str | None:
    """Give the value of an environment word; the last one counts."""
    return dict(draft.command_line.environment).get(name)


def passed_environment(draft: Draft, tag: str) -> list[Element]:
    """Make the elements `tag` for what QEMU still gets, each with a warning: such words can do anything."""
    found: list[Element] = []
    for name, value in dict(draft.command_line.environment).items():
        if NOT_PASSED.fullmatch(name) or not NAME.fullmatch(name):
            continue
        draft.warn(f"{name}={value}: passed through to QEMU's environment")
        element = etree.Element(tag, name=name)
        if value:
            element.set("value", value)
        found.append(element)
    return found
