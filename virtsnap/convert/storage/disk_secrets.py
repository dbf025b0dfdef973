"""-object secret becomes a reference to one of libvirt's secrets, which has to be defined there.

libvirt never takes a passphrase from the domain: it names a secret by its
usage, and gives QEMU the value itself. The usage is the id that the command
line had, so that one `virsh secret-define` is enough for many domains.
"""

from __future__ import annotations

from virtsnap.convert.claims import Claims
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome

# The key that libvirt encrypts all other secrets with; it makes a new one at each start.
MASTER_KEY = "masterKey0"


def passphrase(draft: Draft, claims: Claims, id_: str) -> str:
    """Give the usage of the libvirt secret that stands for an -object secret; raises NotSayable for none."""
    word = draft.find(id_, "object")
    if word is None or word.peek("qom-type") not in {"secret", "secret_keyring"}:
        raise NotSayable(f"no -object secret has the id {id_}")
    if word.peek("keyid") == MASTER_KEY:
        note = f"libvirt's own; the domain names the secret by the usage {id_}"
    else:
        note = f"define it as a libvirt secret with the usage {id_}"
        claims.warnings.append(f"-object secret,id={id_}: define it as a libvirt secret with the usage {id_}")
    claims.take_word(word, Outcome.MANAGED, note)
    return id_


def convert_master_key(draft: Draft) -> None:
    """Claim the key that libvirt made for an earlier start of this very domain."""
    for word in draft.group("object"):
        if word.peek("qom-type") == "secret" and word.peek("id") == MASTER_KEY:
            word.claim_all(Outcome.MANAGED, "libvirt's own key of one start; it makes another")
