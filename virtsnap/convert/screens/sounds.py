"""Sound cards become <sound>: those of -device with their codecs, and those of -soundhw and -audio.

An Intel HDA controller and its codecs are one <sound>; libvirt gives it a
duplex codec where none is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

from virtsnap.convert.build import build_device
from virtsnap.convert.buses.pci import Plugged
from virtsnap.convert.buses.virtio_keys import VIRTIO_KEYS
from virtsnap.convert.device_row import Build, Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Key, virtio
from virtsnap.convert.screens.audio import audio_ids, audio_reference, knows_audio
from virtsnap.convert.values import number_up_to, yes_no

CODECS: Mapping[str, str] = {"hda-duplex": "duplex", "hda-micro": "micro", "hda-output": "output"}
CONTROLLERS = ("intel-hda", "ich9-intel-hda")
VIRTIO_SOUND_SINCE = (10, 4)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a word of -soundhw stands for: libvirt's model, and whether it is a PCI device."""

    model: str
    pci: bool = True


SOUNDHW: Mapping[str, Card] = {
    "ac97": Card(model="ac97"),
    "es1370": Card(model="es1370"),
    "hda": Card(model="ich6"),
    "sb16": Card(model="sb16", pci=False),
}
# The speaker is in every PC. <sound model='pcspk'> makes libvirt give -soundhw, which QEMU has not had since 7.1.
SPEAKER_NOTE = "the guest has its speaker; the host does not play it"


def convert_sound_words(draft: Draft) -> None:
    """Convert -soundhw and `-audio …,model=`, which come before every -device."""
    for word in draft.group("soundhw"):
        names = (word.peek("soundhw") or "").split(",")
        if all(name in SOUNDHW or name == "pcspk" for name in names):
            word.take("soundhw")
            if "pcspk" in names:
                word.claim("soundhw", Outcome.SUBSTITUTED, SPEAKER_NOTE)
            for name in names:
                if name in SOUNDHW:
                    _add_card(draft, word, SOUNDHW[name], None)
    for word in draft.group("audio"):
        if (card := SOUNDHW.get(word.peek("model") or "")) is not None:
            word.take("model")
            ids = audio_ids(draft)
            own = ids.get(word.peek("id") or "")
            _add_card(draft, word, card, own if own != min(ids.values(), key=int, default=None) else None)
    for word in draft.group("machine"):
        word.claim("pcspk-audiodev", Outcome.SUBSTITUTED, SPEAKER_NOTE)


def _add_card(draft: Draft, word: Word, card: Card, audio: str | None) -> None:
    element = draft.add(draft.fill("sound", {"model": card.model, "audio": audio}), word)
    if card.pci:
        draft.pci.add(None, element, plugged=Plugged.DEVICE)


def _build_sound(draft: Draft, word: Word, row: DeviceRow) -> None:
    if knows_audio(draft, word):
        build_device(draft, word, row, {"audio": audio_reference(draft, word)})


def _build_hda(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Build an HDA controller with its codecs; one without a codec is not libvirt's to make."""
    codecs = _codecs_of(draft, word)
    if not codecs or not all(knows_audio(draft, codec) for codec in codecs):
        return
    audio = [audio_reference(draft, codec) for codec in codecs]
    element = build_device(draft, word, row, {"audio": audio[0]})
    kinds = [CODECS[codec.take("driver") or ""] for codec in codecs]
    inner = element.find("audio")
    for index, kind in enumerate(kinds):
        if kinds != ["duplex"]:
            codec = etree.Element("codec", type=kind)
            if inner is None:
                element.append(codec)
            else:
                inner.addprevious(codec)
        codecs[index].land(element)
        for key in ("bus", "id", "cad"):
            codecs[index].claim(key, Outcome.IMPLIED)
        for item in codecs[index].unclaimed():
            codecs[index].claim(item.key, Outcome.DROPPED, "libvirt has no word for it, and the codec no alias")


def _codecs_of(draft: Draft, controller: Word) -> list[Word]:
    """Give the codecs on a controller's bus; those that name no bus sit on the first one."""
    first = next(draft.devices_of(CONTROLLERS), None) is controller
    id_ = controller.peek("id")
    return [
        codec for codec in draft.devices_of(tuple(CODECS))
        if (codec.peek("bus") in {id_, f"{id_}.0"} if codec.has("bus") else first)
    ]


def _row(
    driver: str, model: str, *aliases: str, bus: Bus = Bus.PCI, build: Build = _build_sound
) -> DeviceRow:
    return DeviceRow(drivers=(driver, *aliases), template="sound", bus=bus, build=build, holes={"model": model})


ROWS = (
    _row("intel-hda", "ich6", build=_build_hda),
    _row("ich9-intel-hda", "ich9", build=_build_hda),
    # QEMU knows both spellings of these (qdev_alias_table in softmmu/qdev-monitor.c).
    _row("AC97", "ac97", "ac97"),
    _row("ES1370", "es1370", "es1370"),
    _row("sb16", "sb16", bus=Bus.ISA),
    DeviceRow(
        drivers=("usb-audio",), template="sound", bus=Bus.USB, build=_build_sound, holes={"model": "usb"},
        keys=(Key(key="multi", hole="multichannel", read=yes_no, since=(11, 3)),),
    ),
    DeviceRow(
        drivers=virtio("virtio-sound"), template="sound", bus=Bus.PCI, build=_build_sound,
        holes={"model": "virtio"}, since=VIRTIO_SOUND_SINCE,
        keys=(Key(key="streams", hole="streams", read=number_up_to(64)), *VIRTIO_KEYS),
    ),
)
