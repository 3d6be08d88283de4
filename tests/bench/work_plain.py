"""Workloads that make no task: threads, what CPython audits, a computation."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable

Loop = asyncio.AbstractEventLoop
Work = Callable[[int], object]


def thread(loop: Loop) -> Work:
    def work(count: int) -> None:
        for _ in range(count):
            one = threading.Thread(target=int)
            one.start()
            one.join()

    return work


def c_thread(loop: Loop) -> Work:
    """Of libc's, with abs() as their start routine."""
    import ctypes

    libc = ctypes.CDLL(None)
    handle = ctypes.c_ulong()

    def work(count: int) -> None:
        create, join, place = libc.pthread_create, libc.pthread_join, ctypes.byref(handle)
        for _ in range(count):
            create(place, None, libc.abs, None)
            join(handle, None)

    return work


def open_file(loop: Loop) -> Work:
    def work(count: int) -> None:
        for _ in range(count):
            open(os.devnull).close()  # noqa: PTH123  # the builtin is what is measured

    return work


def logging_info(loop: Loop) -> Work:
    logger = logging.getLogger("bench")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    stream = open(os.devnull, "w")  # noqa: SIM115, PTH123  # as long as the process
    logger.addHandler(logging.StreamHandler(stream))

    def work(count: int) -> None:
        for number in range(count):
            logger.info("request %d", number)

    return work


def getframe(loop: Loop) -> Work:
    get = sys._getframe

    def work(count: int) -> None:
        for _ in range(count):
            get()

    return work


def computation(loop: Loop) -> Work:
    """Calls, attributes, dicts, lists, strings, a little arithmetic."""

    class Node:
        def __init__(self, value: int) -> None:
            self.value = value

        def weight(self, factor: int) -> int:
            return self.value * factor % 101

    def one() -> int:
        nodes = [Node(number) for number in range(100)]
        found: dict[str, int] = {}
        for node in nodes:
            found[f"node {node.value % 17}"] = node.weight(7)
        return sum(found.values()) + len(sorted(nodes, key=lambda node: node.weight(13)))

    def work(count: int) -> None:
        for _ in range(count):
            one()

    return work
