# os._exit, with a daemon thread alive.
# status: 7
# report: 1 live resource at os._exit (1 thread)
import os
import threading
import time

threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
print("leaving", flush=True)
os._exit(7)
