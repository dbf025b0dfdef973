"""A running domain's XML becomes the list of what clients hold open: consoles, sockets of devices, displays.

With another QEMU each of them is another: a pty may have another name, a
display another port. Whoever had one open opens it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

_CHARDEVS = ("serial", "parallel", "console", "channel")
_SERVED = ("pty", "unix", "tcp", "udp", "spicevmc", "vnc", "dbus")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Something to open again.

    `device` is `serial`, `console`, `channel`, `parallel` or `graphics`; `name` libvirt's alias (of graphics:
    none), `type` what it is (`pty`, `unix`, `tcp`, `vnc`, `spice`…). None is what it has not.
    """

    device: str
    type: str
    name: str | None = None
    path: str | None = None
    host: str | None = None
    port: int | None = None
    tls_port: int | None = None
    websocket_port: int | None = None


def read_endpoints(domain: etree._Element) -> tuple[Endpoint, ...]:
    """Read all of a live `<domain>`; a console that is a serial port's other name is told once."""
    found = [
        _chardev(element) for tag in _CHARDEVS for element in domain.iterfind(f"devices/{tag}")
        if element.get("type") in _SERVED
    ]
    told: list[Endpoint] = []
    for endpoint in found:
        if endpoint.device != "console" or all(other.name != endpoint.name for other in told):
            told.append(endpoint)
    return (*told, *(_graphics(element) for element in domain.iterfind("devices/graphics")))


def _chardev(element: etree._Element) -> Endpoint:
    source, alias = element.find("source"), element.find("alias")
    place: Mapping[str, str] = {} if source is None else {str(key): str(at) for key, at in source.items()}
    return Endpoint(
        device=str(element.tag), type=element.get("type", ""), name=None if alias is None else alias.get("name"),
        path=place.get("path"), host=place.get("host"), port=_port(place.get("service")),
    )


def _graphics(element: etree._Element) -> Endpoint:
    listens = element.findall("listen")
    sockets = [listen.get("socket") for listen in listens if listen.get("type") == "socket"]
    addresses = [listen.get("address") for listen in listens if listen.get("address")]
    return Endpoint(
        device="graphics", type=element.get("type", ""), path=element.get("socket") or next(iter(sockets), None),
        host=element.get("listen") or next(iter(addresses), None), port=_port(element.get("port")),
        tls_port=_port(element.get("tlsPort")), websocket_port=_port(element.get("websocket")),
    )


def _port(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() and int(text) > 0 else None
