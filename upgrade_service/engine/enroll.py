"""Who this engine is, and whom it believes: its own key, and the conductors' public keys.

An administrator brings a bundle to the host, out of band: a one-time token and the public
keys. The private key is made here and never leaves. Until a message that a conductor has
signed arrives, the request to be enrolled is repeated: nothing ever answers directly.
"""

from collections.abc import Mapping
import json
import os
import pathlib
import stat
from typing import Any
import uuid

from oslo_log import log

from upgrade_service import exception, trust

LOG = log.getLogger(__name__)
Bundle = Mapping[str, Any] | str | os.PathLike[str]


class Identity:
    """Key, trusted keys and enrolment of one engine, kept in its state directory."""

    def __init__(self, directory: pathlib.Path, host: str, bundle: Bundle | None) -> None:
        """Load the identity, or make one from an enrolment bundle.

        :raises Untrusted: there is neither, or the bundle is not for this host.
        """
        self._trust_file = directory / 'trust.json'
        key_file = directory / 'agent.key'
        self.host = host
        #: whether this identity was made just now
        self.new = not (key_file.exists() and self._trust_file.exists())
        if self.new:
            self._create(key_file, host, bundle)
        self._told = json.loads(self._trust_file.read_text())
        if self._told['host'] != host:
            raise exception.Untrusted(reason=f'{directory} belongs to host {self._told["host"]}')
        self.signer = trust.Signer.load(key_file, '')
        self.signer.kid = self.id = agent_id(self.signer.public)

    def _create(self, key_file: pathlib.Path, host: str, bundle: Bundle | None) -> None:
        told = read_bundle(bundle)
        if told['host'] != host:
            raise exception.Untrusted(reason=f'the enrolment bundle is for host {told["host"]}')
        if not key_file.exists():
            trust.Signer.generate('').save(key_file)
        self._told = {'host': host, 'keys': told['keys'], 'token': told['token']}
        self._save()

    def _save(self) -> None:
        temporary = self._trust_file.with_suffix('.new')
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, 'w') as f:
            json.dump(self._told, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, self._trust_file)

    @property
    def keys(self) -> Mapping[str, str]:
        """Public keys of the conductors, by kid."""
        keys: dict[str, str] = self._told['keys']
        return keys

    @property
    def token(self) -> str | None:
        """The token to enrol with; None once a conductor knows us."""
        token: str | None = self._told.get('token')
        return token

    def enrolled(self) -> None:
        """Note that a conductor knows us: the token is spent."""
        if self._told.pop('token', None) is None:
            return
        try:
            self._save()
        except OSError as e:
            LOG.warning('the spent token cannot be removed from %s: %s', self._trust_file, e)

    def rotate(self, keys: Mapping[str, str]) -> None:
        """Believe these keys from now on; one of the old ones has signed for them."""
        if keys and all(isinstance(k, str) and isinstance(v, str) for k, v in keys.items()):
            self._told['keys'] = dict(keys)
            self._save()


def agent_id(public: str) -> str:
    """Return the id that both sides derive from an engine's public key."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, public))


def read_bundle(bundle: Bundle | None) -> Mapping[str, Any]:
    """Return a bundle {token, host, keys} given as data or as a file.

    :raises Untrusted: it is not there, others can read it, or it is no bundle.
    """
    if isinstance(bundle, Mapping):
        found: Any = bundle
    else:
        try:
            if bundle is None or stat.S_IMODE(os.stat(bundle).st_mode) & 0o077:
                raise exception.Untrusted(reason=f'the bundle {bundle} must have mode 0600')
            found = json.loads(pathlib.Path(bundle).read_text())
        except FileNotFoundError:
            raise exception.Untrusted(
                reason=f'not enrolled and no {bundle}: `openstack upgrade agent enroll HOST` '
                'prints it'
            ) from None
        except ValueError as e:
            raise exception.Untrusted(reason=f'{bundle} is not JSON') from e
    if not isinstance(found, Mapping) or not {'token', 'host', 'keys'} <= set(found):
        raise exception.Untrusted(reason='the enrolment bundle lacks token, host or keys')
    return found
