"""The short notation of character devices becomes the properties of `-chardev`.

`-serial unix:/run/s,server,nowait` and `-chardev socket,path=/run/s,server=on,wait=off`
mean the same. Rules: qemu_chr_parse_compat() in QEMU's chardev/char.c.
"""

from __future__ import annotations

from virtsnap.command_line.keyval import Properties, Property, SyntaxFault, parse_keyval, split_commas

BARE_BACKENDS = frozenset({"null", "pty", "msmouse", "braille", "testdev", "stdio"})


def parse_chardev_text(text: str) -> Properties:
    """Read one short form; the result has `backend` first.

    The backend `none` (no device at all) and `chardev` (with `id`: one that
    `-chardev` defines) exist here only. Raises SyntaxFault for a text that
    QEMU does not know.
    """
    mux = text.startswith("mon:")
    items = _backend(text.removeprefix("mon:"))
    if mux:
        items.append(Property(key="mux", value="on", given=False))
    return Properties(items=tuple(items))


def _backend(text: str) -> list[Property]:
    def one(backend: str, **more: str) -> list[Property]:
        return [Property(key="backend", value=backend), *(Property(key=k, value=v) for k, v in more.items() if v)]

    if text in BARE_BACKENDS or text in {"none", "vc"}:
        return one(text)
    if text == "con:":
        return one("console")
    head, colon, rest = text.partition(":")
    if head == "vc" and colon:
        columns, _, rows = rest.partition("x")
        if columns.endswith("C"):
            return one("vc", cols=columns[:-1], rows=rows.removesuffix("C"))
        return one("vc", width=columns, height=rows)
    if text.upper().startswith("COM") and text[3:].isdigit():
        return one("serial", path=text)
    if head in {"file", "pipe"} and colon:
        first, *more = split_commas(rest)
        return [*one(head, path=first), *_switches(more)]
    if head == "chardev" and colon:
        return one("chardev", id=rest)
    if head in {"unix", "tcp", "telnet", "tn3270", "websocket"} and colon:
        return _socket(head, rest)
    if head == "udp" and colon:
        return _udp(rest)
    if text.startswith(("/dev/parport", "/dev/ppi")):
        return one("parallel", path=text)
    if text.startswith("/dev/"):
        return one("serial", path=text)
    if head in BARE_BACKENDS | {"vc", "spicevmc"} or "," in text:
        # -serial null,… and the like: QEMU reads a bare backend with options as -chardev would
        return list(parse_keyval(text, "backend"))
    raise SyntaxFault(f"no character device is called {text!r}")


def _switches(words: list[str]) -> list[Property]:
    return list(parse_keyval(",".join(word.replace(",", ",,") for word in words))) if words else []


def _socket(protocol: str, rest: str) -> list[Property]:
    first, *more = split_commas(rest)
    items = [Property(key="backend", value="socket")]
    if protocol == "unix":
        items.append(Property(key="path", value=first))
    else:
        host, port = _host_port(first)
        items += [Property(key="host", value=host), Property(key="port", value=port)]
        if protocol != "tcp":
            items.append(Property(key=protocol, value="on", given=False))
    return items + _switches(more)


def _udp(rest: str) -> list[Property]:
    remote, _, local = rest.partition("@")
    host, port = _host_port(remote)
    items = [Property(key="backend", value="udp"), Property(key="host", value=host)]
    items.append(Property(key="port", value=port))
    if local:
        local_host, local_port = _host_port(local)
        items += [Property(key="localaddr", value=local_host), Property(key="localport", value=local_port)]
    return items


def _host_port(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, closed, port = text[1:].partition("]:")
        if not closed:
            raise SyntaxFault(f"{text!r} is not [ADDRESS]:PORT")
        return host, port
    host, colon, port = text.rpartition(":")
    if not colon or not port:
        raise SyntaxFault(f"{text!r} is not HOST:PORT")
    return host, port
