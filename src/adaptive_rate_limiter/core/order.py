"""Names in the order of a number, as a sorted set of Redis keeps them: ties go by name."""

from __future__ import annotations

from bisect import bisect_left, insort


class Order:
    __slots__ = ("_numbers", "_places")

    def __init__(self) -> None:
        self._numbers: dict[str, float] = {}
        self._places: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._places)

    def put(self, name: str, number: float) -> None:
        self.drop(name)
        self._numbers[name] = number
        insort(self._places, (number, name))

    def drop(self, name: str) -> None:
        number = self._numbers.pop(name, None)
        if number is not None:
            del self._places[bisect_left(self._places, (number, name))]

    def rank(self, name: str, number: float) -> int:
        """How many come before a name that had this number."""
        return bisect_left(self._places, (number, name))

    def first(self, count: int) -> list[tuple[float, str]]:
        return self._places[:count]
