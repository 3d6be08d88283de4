"""Cycles of tasks that wait for each other, or for locks that another one of them holds."""

from __future__ import annotations

from leakguard import _awaits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leakguard._awaits import Waiting
    from leakguard._core import Record

Step = tuple["Record", "Any"]  # a task, and the lock through which it waits for the next, or None


class Deadlocks:
    """Found once for all tasks.

    A task can go on where it waits for nothing but a leaf, which somebody may still set; where all
    tasks that it waits for can; where it needs only one of them and that one can; or where its wait
    has a timeout. What is left then is in a cycle, or waits for one.
    """

    def __init__(self, records: dict[int, Record], waits: dict[int, Waiting]) -> None:
        """The records of all live tasks, and what each waits for, by its id."""
        self._records = records
        self._waits = waits
        self._holders: dict[int, list[Record]] | None = None
        self._next: dict[int, list[int]] = {}
        self._any: set[int] = set()
        for key, waiting in waits.items():
            self._add(key, waiting)
        self._stuck = self._find_stuck()
        timed = [key for key in self._stuck if self._has_timeout(key)]
        if timed:
            for key in timed:
                del self._next[key]
            self._stuck = self._find_stuck()
        self._cycles: dict[int, tuple[list[int], int]] = {}

    def holders(self, lock: Any) -> list[Record]:
        """The tasks that are inside `async with lock`; one that came in twice, twice."""
        if self._holders is None:
            self._holders = {}
            for record in self._records.values():
                for block in _awaits.blocks_of(record.object):
                    self._holders.setdefault(id(_awaits.lock_of(block)), []).append(record)
        return self._holders.get(id(lock), [])

    def cycle(self, task: Any, most: int) -> tuple[int, list[Step]]:
        """How long the cycle is in which a task is, and its first steps from that task on, at most
        so many; (0, []) where it is in none."""
        found = self._cycle_through(id(task))
        if found is None:
            return 0, []
        path, start = found
        count = min(most, len(path))
        keys = [path[(start + place) % len(path)] for place in range(count)]
        return len(path), [(self._records[key], self._waits[key].lock) for key in keys]

    def _add(self, key: int, waiting: Waiting) -> None:
        if waiting.is_timed:
            return
        following = [id(task) for task in waiting.tasks]
        if waiting.lock is not None:
            following = [id(record.object) for record in self._needed(waiting.lock)]
            self._any.add(key)
        elif waiting.is_any:
            self._any.add(key)
            if waiting.leaves:
                return
        if following:
            self._next[key] = following

    def _has_timeout(self, key: int) -> bool:
        return any(_awaits.is_timeout(it) for it in _awaits.blocks_of(self._records[key].object))

    def _needed(self, lock: Any) -> list[Record]:
        """Who must let go of a lock; empty where that cannot be known. A semaphore says only where
        it is bounded how many are inside."""
        inside = self.holders(lock)
        if not hasattr(lock, "_value"):
            return inside[:1]
        return inside if len(inside) == getattr(lock, "_bound_value", None) else []

    def _find_stuck(self) -> set[int]:
        before: dict[int, list[int]] = {}
        missing: dict[int, int] = {}
        free = [key for key in self._records if key not in self._next]
        for key, following in self._next.items():
            inside = [one for one in following if one in self._records]
            missing[key] = 1 if key in self._any else len(inside)
            if not inside or (key in self._any and len(inside) < len(following)):
                free.append(key)
            for one in inside:
                before.setdefault(one, []).append(key)
        released = set(free)
        while free:
            for key in before.get(free.pop(), ()):
                missing[key] -= 1
                if missing[key] <= 0 and key not in released:
                    released.add(key)
                    free.append(key)
        return self._without_queue({key for key in self._next if key not in released})

    def _without_queue(self, stuck: set[int]) -> set[int]:
        """Without those that only wait for a cycle: nobody in it waits for them."""
        counts = dict.fromkeys(stuck, 0)
        for key in stuck:
            for one in self._next[key]:
                if one in counts:
                    counts[one] += 1
        ends = [key for key, count in counts.items() if not count]
        while ends:
            key = ends.pop()
            stuck.discard(key)
            for one in self._next[key]:
                if one in stuck:
                    counts[one] -= 1
                    if not counts[one]:
                        ends.append(one)
        return stuck

    def _cycle_through(self, start: int) -> tuple[list[int], int] | None:
        if start not in self._stuck:
            return None
        if start not in self._cycles:
            path = self._shortest(start)
            for place, key in enumerate(path):
                self._cycles.setdefault(key, (path, place))
            if not path:
                self._stuck.discard(start)  # it only lies between two cycles
        return self._cycles.get(start)

    def _shortest(self, start: int) -> list[int]:
        came_from: dict[int, int] = {}
        queue = [start]
        for key in queue:
            for one in self._next[key]:
                if one == start:
                    path = [key]
                    while path[-1] != start:
                        path.append(came_from[path[-1]])
                    return path[::-1]
                if one in self._stuck and one not in came_from:
                    came_from[one] = key
                    queue.append(one)
        return []
