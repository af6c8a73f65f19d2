"""From the model of a call, and the host and credential that its request goes to, to its bucket."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol, TypeAlias
from urllib.parse import urlsplit

from adaptive_rate_limiter.core.bucket import Bucket
from adaptive_rate_limiter.core.charging import charging_for
from adaptive_rate_limiter.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from adaptive_rate_limiter.backends.base import BaseBackend
    from adaptive_rate_limiter.backends.locked import LockedBucket, Seen
    from adaptive_rate_limiter.reservation import Reservation

MOST_ROUTES = 10_000  # of the lookups kept at hand; beyond, each takes a microsecond longer

Key: TypeAlias = "tuple[str | None, Hashable]"
"""A model and its route, which tells calls of one model to several hosts apart before the first is sent."""


class Url(Protocol):
    """Of httpx or httpx2; as text, it is whole."""

    @property
    def raw_host(self) -> bytes: ...
    @property
    def port(self) -> int | None: ...


class Routes:
    """The buckets of one namespace: one for each (host, credential, model), made when it is first asked for."""

    def __init__(
        self, backend: BaseBackend, namespace: str, make: Callable[[str, str | None], LockedBucket]
    ) -> None:
        self.at_hand: dict[Key, LockedBucket] = {}  # where the last call went
        self._backend = backend
        self._make = make
        self._prefix = namespace.replace("%", "%25").replace("/", "%2F") + "/"
        self._secret = hashlib.blake2b(namespace.encode(errors="replace")).digest()
        self._origins: dict[Seen, tuple[str, str]] = {}

    def bucket_for(self, key: Key) -> LockedBucket:
        """Where the next call goes. Raises ConfigurationError if the model is no name, or the key cannot be hashed."""
        try:
            bucket = self.at_hand.get(key)
        except TypeError as error:
            raise ConfigurationError(f"model and route must be hashable, got {key!r}") from error
        if bucket is None:
            model = key[0]
            if model is not None and not isinstance(model, str):
                raise ConfigurationError(f"model must be a name, got {model!r}")
            bucket = self._bucket(model)
            self._keep_at_hand(key, bucket)
        return bucket

    def rehome(self, reservation: Reservation, url: Url, credential: bytes | None) -> bool:
        """Tie the reservation to the host and credential that its request goes to.

        The first request of a model decides where its bucket belongs; one to another host or with another
        key moves to the bucket of that. True if it moved, and has to be admitted there.
        """
        old = reservation.bucket
        seen = (url.raw_host, url.port, hash(credential))  # no credential stays in here
        if seen == old.last_seen:
            return False
        origin = self._origins.get(seen)
        if origin is None:
            origin = (urlsplit(str(url)).netloc.rpartition("@")[2].lower(), self._hashed(credential))
            if len(self._origins) < MOST_ROUTES:
                self._origins[seen] = origin
        if old.origin is None:
            old.belong(origin, charging_for(str(url)))
        if old.origin == origin:
            old.last_seen = seen
            return False
        home = self._bucket(reservation.model)
        if home.origin != origin:
            home = self._bucket(reservation.model, origin)
            home.belong(origin, charging_for(str(url)))
        self._keep_at_hand(reservation.key, home)
        old.step(Bucket.move, reservation.call)
        reservation.bucket = home
        return True

    def buckets(self, model: str | None = None) -> list[LockedBucket]:
        """Those that were asked for so far, of one model or of all."""
        mine = self._backend.buckets(self._prefix)
        return mine if model is None else [bucket for bucket in mine if bucket.model == model]

    def unused(self, model: str | None) -> LockedBucket:
        """One like that of `model`, for questions; no call goes there."""
        return self._make(self._prefix + (model or "*"), model)

    def _keep_at_hand(self, key: Key, bucket: LockedBucket) -> None:
        if len(self.at_hand) < MOST_ROUTES or key in self.at_hand:
            self.at_hand[key] = bucket

    def _bucket(self, model: str | None, origin: tuple[str, str] | None = None) -> LockedBucket:
        bucket_id = self._prefix + (model or "*")
        if origin is not None:
            bucket_id += f"@{origin[0]}" + (f"#{origin[1]}" if origin[1] else "")
        return self._backend.bucket(bucket_id, lambda: self._make(bucket_id, model))

    def _hashed(self, credential: bytes | None) -> str:
        """A credential leaves this function only as a short keyed hash."""
        if not credential:
            return ""
        _, signed, rest = credential.partition(b"Credential=")
        if signed:  # an AWS signature differs for each request; the access key's id is what stays
            credential = rest.partition(b"/")[0]
        return hashlib.blake2b(credential, key=self._secret, digest_size=4).hexdigest()
