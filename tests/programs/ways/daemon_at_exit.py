# Daemon threads that are in Python code while the interpreter finalises.
# status: 0
# report: 3 live resources at exit (3 threads)
import threading
import time


def busy():
    while True:
        sum(range(100))


def sleepy():
    while True:
        time.sleep(0.0001)


for target in (busy, sleepy, threading.Event().wait):
    threading.Thread(target=target, daemon=True).start()
print("done")
