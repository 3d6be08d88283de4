"""Checkpoints: named moments of a life cycle, and sites that must not grow from cycle to cycle."""

from __future__ import annotations

from collections import Counter

from leakguard import _check, _core, _growth, _ledger, _stacks, _tracking, _verdict
from leakguard._errors import error_of
from leakguard._findings import is_clean
from leakguard._kinds import parse_kinds
from leakguard._limits import Limits, parse_max_live
from leakguard._report import Report
from leakguard._rules import rules_from
from leakguard._verdict import Question

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from leakguard._describe import Resource
    from leakguard._limits import Seen, Watch
    from leakguard._rules import IgnoreRule
    from leakguard._verdict import Found

    Rules = IgnoreRule | Iterable[IgnoreRule]
    Kinds = str | Iterable[str] | None


class Checkpoint:
    """A named moment; what was born since can be asked for. Made by `checkpoint()`."""

    def __init__(self, label: str | None, limits: Limits) -> None:
        if label is not None and not isinstance(label, str):
            raise TypeError(f"label must be a str, not {type(label).__name__}")
        _tracking.ensure_any()
        self.label = label
        self._limits = limits
        self._watch = limits.begin()
        self._kinds = _tracking.tracked()
        self._mark = _ledger.Mark(taker=next(iter(_core.line(None)), 0))
        _growth.note()

    def leaks(
        self,
        *,
        grace: float = 0.0,
        kinds: Kinds = None,
        scope: str = "process",
        ignore: Rules = (),
        max_live: Mapping[str, int] | None = None,
    ) -> Report:
        """Look at what was born since and is still alive; never raises for a leak.

        grace: seconds to wait for it to end by itself.
        kinds: a kind or an iterable of kinds; None is tasks and threads.
        scope: "process", or "descendants": only what the task or thread that took the checkpoint
            created, directly or not.
        ignore: rules made by `ignore()`.
        max_live: kind to number, how many may have been alive at once since; None is what
            `checkpoint(max_live=...)` was given. Only what was named there is counted.

        Raises ValueError for a kind that was not tracked, or not counted, when the checkpoint was
        taken;
        RuntimeError where leakguard was uninstalled since, or where it would have to wait in a
        thread whose event loop is running.
        """
        question = self._question(kinds, scope, ignore, asker=None)
        seconds = _check.parse_grace(grace)
        _check.refuse_sync(seconds, question.kinds, "`await Checkpoint.assert_clean_async()`")
        return _check.check(
            question,
            seconds,
            self._mark,
            reason="checkpoint",
            label=self.label,
            seen=self._seen(max_live, scope),
        )

    def assert_clean(
        self,
        *,
        grace: float = 1.0,
        kinds: Kinds = None,
        scope: str = "process",
        ignore: Rules = (),
        max_live: Mapping[str, int] | None = None,
    ) -> None:
        """Raise LeakError if what was born since is still alive after `grace` seconds, FanoutError
        where more was alive at once than `max_live` allows.

        Arguments and errors are those of `leaks`.
        """
        question = self._question(kinds, scope, ignore, asker=self)
        seconds = _check.parse_grace(grace)
        _check.refuse_sync(seconds, question.kinds, "`await Checkpoint.assert_clean_async()`")
        self._raise(
            _check.check(
                question,
                seconds,
                self._mark,
                reason="checkpoint",
                label=self.label,
                seen=self._seen(max_live, scope),
            )
        )

    async def assert_clean_async(
        self,
        *,
        grace: float = 1.0,
        kinds: Kinds = None,
        scope: str = "process",
        ignore: Rules = (),
        max_live: Mapping[str, int] | None = None,
    ) -> None:
        """As `assert_clean`, yielding to the event loop while it waits."""
        question = self._question(kinds, scope, ignore, asker=self)
        self._raise(
            await _check.check_async(
                question,
                _check.parse_grace(grace),
                self._mark,
                reason="checkpoint",
                label=self.label,
                seen=self._seen(max_live, scope),
            )
        )

    def _seen(self, max_live: Mapping[str, int] | None, scope: str) -> Seen | None:
        """What exceeded a limit up to now."""
        limits = parse_max_live(max_live)
        counted = self._limits.max_live
        for kind in limits:
            if kind not in counted:
                raise ValueError(
                    f"kind {kind!r} is not counted since this checkpoint: name it there, "
                    f"checkpoint(max_live={{{kind!r}: {limits[kind]}}})"
                )
        if self._watch is None:
            return None
        if _check.parse_scope(scope):
            raise ValueError(
                'a checkpoint\'s max_live counts the whole process: with scope="descendants" use '
                "guard(max_live=...)"
            )
        return self._watch.look(limits or None)

    def _question(self, kinds: Kinds, scope: str, ignore: Rules, asker: object) -> Question:
        wanted = parse_kinds(kinds, _tracking.AVAILABLE)
        untracked = [kind for kind in wanted if kind not in self._kinds]
        if untracked:
            raise ValueError(
                f"kind {untracked[0]!r} was not tracked when the checkpoint was taken; tracked "
                f"then: {', '.join(sorted(self._kinds)) or 'none'}"
            )
        if not self._mark.is_current:
            raise RuntimeError(
                "leakguard was uninstalled since this checkpoint: it cannot say whether it is clean"
            )
        return Question(
            since=self._mark.serial,
            kinds=wanted,
            rules=rules_from(ignore),
            ancestor=_ancestor(scope, self._mark.taker),
            asker=asker,
        )

    def _raise(self, report: Report) -> None:
        if not is_clean(report):
            _ledger.report(list(report), self)
            raise error_of(report)


def _ancestor(scope: str, taker: int) -> int:
    """Whose descendants are asked for, 0 for the whole process."""
    if not _check.parse_scope(scope):
        return 0
    if not taker:
        raise ValueError(
            'scope="descendants" needs to know what runs here: a task, or a thread that is tracked '
            "(install with the kind `thread`)"
        )
    return taker


def checkpoint(
    label: str | None = None, *, max_live: Mapping[str, int] | None = None
) -> Checkpoint:
    """Mark this moment: what is born from here on can be asked for. Installs if nobody has.

    max_live: kind to number, how many of those born from here on may be alive at once. They are
        counted as long as the checkpoint lives; without it, nothing is.
    """
    return Checkpoint(label, Limits(max_live))


Site = tuple[str, "_stacks.Frame | None", str]  # kind, site, function


class _Cycle:
    """What one label remembers from call to call."""

    def __init__(self) -> None:
        self.first = _ledger.Mark(keeps=False)
        self.counts: Counter[Site] = Counter()
        self.history = _growth.History()
        self._watch: Watch | None = None

    def remember(self, counts: Counter[Site]) -> None:
        """What a call has counted."""
        self.counts = counts
        by_site: Counter[tuple[str, _stacks.Frame]] = Counter()
        for (kind, site, _), count in counts.items():
            if site is not None:
                by_site[kind, site] += count
        self.history.add(by_site)

    def next_seen(self, limits: Limits) -> Seen | None:
        """What exceeded these limits since the call before; counts anew from here on."""
        seen = None if self._watch is None else self._watch.look(limits.max_live)
        self.stop()
        self._watch = limits.begin()
        return seen

    def stop(self) -> None:
        """Count no more."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def question(self, kinds: Kinds, scope: str, ignore: Rules) -> Question:
        return Question(
            since=0,
            found=True,
            pools_since=self.first.serial,
            kinds=parse_kinds(kinds, _tracking.AVAILABLE),
            rules=rules_from(ignore),
            ancestor=_ancestor(scope, next(iter(_core.line(None)), 0)),
        )


_cycles: dict[str, _Cycle] = {}


class _GrowthPolling(_check.Polling):
    """Looks only for what a site has more of than at the call before."""

    __slots__ = ("_before", "counts", "seen")

    def __init__(
        self, question: Question, grace: float, before: Counter[Site], seen: Seen | None = None
    ) -> None:
        self._before = before
        self.seen = seen  # what exceeded a limit, for the report
        self.counts: Counter[Site] = Counter()
        super().__init__(question, grace)

    def _narrow(self, found: Found) -> None:
        """Keep of what was found the newest of each site that has more than before.

        What was there before tracking began has no site: it counts for every site that creates
        the same function.
        """
        by_site: dict[Site, list[Resource]] = {}
        for resource in found.resources:
            site = None if resource.record.found else resource.site[0]
            by_site.setdefault((resource.kind, site, resource.function), []).append(resource)
        self.counts = Counter({site: len(group) for site, group in by_site.items()})
        found.abandoned = []
        found.resources = []
        for (kind, site, function), group in by_site.items():
            if site is None:
                continue
            unsited = (kind, None, function)
            before = self._before[kind, site, function] + self._before[unsited]
            now = len(group) + self.counts[unsited]
            for resource in group[max(0, len(group) - (now - before)) :] if now > before else ():
                found.resources.append(resource)
                found.growth[resource.serial] = (
                    f"live resources created here at the call before and now: {before} → {now}"
                )


def assert_stable(
    label: str,
    *,
    grace: float = 1.0,
    kinds: Kinds = None,
    scope: str = "process",
    ignore: Rules = (),
    max_live: Mapping[str, int] | None = None,
) -> None:
    """Call it at the same point of each cycle (each reconnect, each reload).

    The first call with a label remembers how many resources of each creation site live; a later
    one raises LeakError where a site has more than at the call before, naming the site and
    "1 → 2". One label is one cycle of the whole process.

    grace, kinds, scope, ignore: as for `Checkpoint.leaks`.
    max_live: kind to number, how many may have been alive at once since the call before, counted
        in the whole process from the first call that gives it. More is a FanoutError.
    """
    limits = Limits(max_live)
    polling = _begin_cycle(label, grace, kinds, scope, ignore, limits, is_async=False)
    if polling is not None:
        polling.run()
        _end_cycle(label, polling)


async def assert_stable_async(
    label: str,
    *,
    grace: float = 1.0,
    kinds: Kinds = None,
    scope: str = "process",
    ignore: Rules = (),
    max_live: Mapping[str, int] | None = None,
) -> None:
    """As `assert_stable`, yielding to the event loop while it waits."""
    limits = Limits(max_live)
    polling = _begin_cycle(label, grace, kinds, scope, ignore, limits, is_async=True)
    if polling is not None:
        await polling.run_async()
        _end_cycle(label, polling)


def _begin_cycle(
    label: str,
    grace: float,
    kinds: Kinds,
    scope: str,
    ignore: Rules,
    limits: Limits,
    *,
    is_async: bool,
) -> _GrowthPolling | None:
    """None at a label's first call, which only remembers."""
    if not isinstance(label, str):
        raise TypeError(f"label must be a str, not {type(label).__name__}")
    seconds = _check.parse_grace(grace)
    wanted = parse_kinds(kinds, _tracking.AVAILABLE)
    _tracking.ensure(wanted)
    if not is_async:
        _check.refuse_sync(seconds, wanted, "`await assert_stable_async()`")
    cycle = _cycles.get(label)
    if cycle is not None and not cycle.first.is_current:
        _cycles.pop(label).stop()  # the next call begins anew
        raise RuntimeError(
            f"leakguard was uninstalled since assert_stable({label!r}) was called first: "
            "it cannot say whether this cycle is clean"
        )
    if cycle is None:
        cycle = _cycles[label] = _Cycle()
        first = _GrowthPolling(cycle.question(wanted, scope, ignore), 0.0, Counter())
        cycle.remember(first.counts)
        cycle.next_seen(limits)
        return None
    seen = cycle.next_seen(limits)
    return _GrowthPolling(cycle.question(wanted, scope, ignore), seconds, cycle.counts, seen)


def _end_cycle(label: str, polling: _GrowthPolling) -> None:
    cycle = _cycles[label]
    cycle.remember(polling.counts)
    polling.found.context.history = cycle.history
    report = polling.report(cycle.first, reason="stable", label=label, seen=polling.seen)
    if not is_clean(report):
        _ledger.report(list(report), cycle)
        raise error_of(report)


def snapshot(*, kinds: Kinds = None, done: bool = False) -> Report:
    """All live resources now, leaks or not, those that were there before tracking included.

    kinds: a kind or an iterable of kinds; None is tasks and threads. Installs if nobody has.
    done: instead, the tasks that have ended and that something still holds. A site of which there
        are more from snapshot to snapshot is where a collection grows that nobody empties.

    Raises ValueError for `done` with kinds other than tasks.
    """
    wanted = parse_kinds("task" if done and kinds is None else kinds, _tracking.AVAILABLE)
    if done and wanted != ("task",):
        raise ValueError("done=True is about tasks: leave kinds out, or give 'task'")
    _tracking.ensure(wanted)
    _tracking.sweep()
    mark = _ledger.Mark()
    if not done:
        _growth.note()
    try:
        found = _verdict.finished_tasks() if done else _verdict.everything(wanted)
        reason = "done" if done else "snapshot"
        return Report(found, reason=reason, notes=_check.notes_of(mark))
    finally:
        mark.close()
