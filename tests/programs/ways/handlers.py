# Handlers of the program for exits, exceptions and signals are called as ever.
# status: 0
import atexit
import signal
import sys
import threading

atexit.register(print, "atexit")
threading.excepthook = lambda arguments: print("thread:", arguments.exc_value)
sys.excepthook = lambda kind, value, traceback: print("main:", value)
signal.signal(signal.SIGUSR1, lambda number, frame: print("signal", number))
signal.raise_signal(signal.SIGUSR1)


def fails():
    raise ValueError("in a thread")


thread = threading.Thread(target=fails)
thread.start()
thread.join()
