"""As open-telemetry/opentelemetry-python 5640: every call builds a reader with a daemon ticker of
its own, which nobody shuts down.
"""

import json
import sys
import threading

import leakguard


class Reader:
    def __init__(self):
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self._thread.start()  # leak

    def _tick(self):
        while not self._stopped.wait(60):
            pass

    def shut_down(self):
        self._stopped.set()
        self._thread.join()


def call(tidy):
    reader = Reader()
    if tidy:
        reader.shut_down()


def main(tidy):
    start = leakguard.checkpoint()
    for _ in range(3):
        call(tidy)
        leakguard.checkpoint()
    print(json.dumps([leak.to_dict() for leak in start.leaks()]))


main("tidy" in sys.argv)
