"""TLS for servers of Python's `ssl` from reloaded certificates: each handshake takes those of that moment.

The listening context never changes; it hands every handshake over to a context made of the present files. So withdrawn
authorities are withdrawn, which a context that only loads more of them could not do.
"""

import ssl
import tempfile
from pathlib import Path

from t2i_runtime.tls.certificates import CHAIN, KEY, Certificates
from t2i_runtime.tls.reloading import Reloaded


def server_context(certificates: Reloaded[Certificates], ask_clients: bool) -> ssl.SSLContext:
    """`ask_clients`: only clients whose certificate the authorities in ca.crt signed may connect at all."""
    listening = _context(certificates.current, ask_clients)
    present = listening

    def take(current: Certificates) -> None:
        nonlocal present
        present = _context(current, ask_clients)

    def hand_over(handshake: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        del name, context
        handshake.context = present

    certificates.on_change(take)
    listening.sni_callback = hand_over  # called for clients that name no server, too
    return listening


def _context(current: Certificates, ask_clients: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0  # a resumed session would not be asked for its certificate again
    if ask_clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=current.authorities.decode())
    with tempfile.TemporaryDirectory() as folder:  # Python's ssl takes a key from a file only; the folder is ours alone
        chain, key = Path(folder, CHAIN), Path(folder, KEY)
        chain.write_bytes(current.chain)
        key.touch(0o600)
        key.write_bytes(current.key)
        context.load_cert_chain(chain, key)
    return context
