"""Copies of what many share: in this process they are the same object, in another one its like."""

from __future__ import annotations

import os
import uuid
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

__all__ = ["Shared"]

_names: WeakKeyDictionary[Shared, str] = WeakKeyDictionary()
_by_name: WeakValueDictionary[str, Shared] = WeakValueDictionary()
_received: deque[Shared] = deque(maxlen=100)
"""The last from other processes: what one task of a pool of workers has learned serves the next."""


class Shared(ABC):
    """Frameworks copy and pickle whatever holds it, also in order to send it to other processes."""

    @abstractmethod
    def elsewhere(self) -> Callable[[], Self]:
        """What makes its like in another process. Raises TypeError if that cannot be."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        name = _names.get(self)
        if name is None:
            name = f"{os.getpid()}-{uuid.uuid4()}"
            _names[self], _by_name[name] = name, self
        return _restored, (name, self.elsewhere())


def _restored(name: str, make: Callable[[], Shared]) -> Shared:
    found = _by_name.get(name)
    if found is None:
        found = make()
        _names[found], _by_name[name] = name, found
        _received.append(found)
    return found
