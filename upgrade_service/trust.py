"""Signing and verifying: who said a message, and that nobody changed it.

Every compute host of a cloud holds credentials to the message bus, so a message proves
nothing by having arrived. Orders carry the deployment's Ed25519 signature, reports the
engine's own. An envelope is ``{'payload': str, 'kid': str, 'sig': str}``: the signature
covers the exact payload text, so there is no canonical form to agree on.
"""

import base64
from collections.abc import Mapping
import json
import os
import pathlib
import stat
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from upgrade_service import exception

Envelope = dict[str, str]
#: a larger message is refused before it is parsed
MAX_PAYLOAD = 64 * 1024
_RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)


class Signer:
    """A private key and the name (`kid`) under which others know its public half."""

    def __init__(self, key: ed25519.Ed25519PrivateKey, kid: str) -> None:
        self._key = key
        self.kid = kid

    @classmethod
    def generate(cls, kid: str) -> 'Signer':
        """Make a new key."""
        return cls(ed25519.Ed25519PrivateKey.generate(), kid)

    @classmethod
    def load(cls, path: str | os.PathLike[str], kid: str) -> 'Signer':
        """Read a key file; refuse one that others than its owner can read."""
        if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
            raise exception.Untrusted(reason=f'key file {path} must have mode 0600')
        raw = base64.b64decode(pathlib.Path(path).read_text())
        return cls(ed25519.Ed25519PrivateKey.from_private_bytes(raw), kid)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the key, readable by its owner alone; never over another one."""
        raw = self._key.private_bytes_raw()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, 'w') as f:
            f.write(base64.b64encode(raw).decode() + '\n')
            f.flush()
            os.fsync(f.fileno())

    @property
    def public(self) -> str:
        """The public key, base64 of 32 bytes."""
        return base64.b64encode(self._key.public_key().public_bytes(*_RAW)).decode()

    def seal(self, payload: Mapping[str, Any]) -> Envelope:
        """Sign a payload."""
        text = json.dumps(payload, separators=(',', ':'))
        sig = self._key.sign(text.encode())
        return {'payload': text, 'kid': self.kid, 'sig': base64.b64encode(sig).decode()}


def peek(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """Parse a payload WITHOUT trusting it, only to learn whose key to look up."""
    text = envelope.get('payload') if isinstance(envelope, Mapping) else None
    if not isinstance(text, str) or len(text) > MAX_PAYLOAD:
        raise exception.Untrusted(reason='no payload, or one that is too large')
    try:
        payload = json.loads(text)
    except ValueError as e:
        raise exception.Untrusted(reason='the payload is not JSON') from e
    if not isinstance(payload, dict):
        raise exception.Untrusted(reason='the payload is not an object')
    return payload


def unseal(envelope: Mapping[str, Any], keys: Mapping[str, str], kind: str) -> dict[str, Any]:
    """Return the payload if one of `keys` (kid -> public key) signed it and it is a `kind`.

    :raises Untrusted: it is not signed, not by a known key, or another kind of message.
    """
    payload = peek(envelope)
    public = keys.get(str(envelope.get('kid')))
    if public is None:
        raise exception.Untrusted(reason=f'unknown key {str(envelope.get("kid"))[:64]!r}')
    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(public))
        key.verify(base64.b64decode(str(envelope.get('sig'))), envelope['payload'].encode())
    except (InvalidSignature, ValueError) as e:
        raise exception.Untrusted(reason='the signature is wrong') from e
    if payload.get('type') != kind:
        raise exception.Untrusted(reason=f'expected {kind}, got {str(payload.get("type"))[:32]!r}')
    return payload
