# A sub-interpreter with threads and tasks of its own: passed through.
# status: 0
import sys
import textwrap

try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

code = """
import threading
thread = threading.Thread(target=print, args=("in a thread of it",))
thread.start()
thread.join()
"""
# Up to 3.11 an isolated one may start no thread.
number = interpreters.create(**({"isolated": False} if sys.version_info < (3, 12) else {}))
interpreters.run_string(number, textwrap.dedent(code))
interpreters.destroy(number)
print("done")
