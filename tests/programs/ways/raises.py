# An exception that nobody catches, while a thread holds up the exit.
# status: 1
# report: 1 leak at shutdown (1 thread
import threading
import time

threading.Thread(target=time.sleep, args=(0.6,)).start()
raise ValueError("nobody catches it")
