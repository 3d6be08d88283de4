# A program that gevent has patched (a stand-in here: what matters is the module's name).
# status: 0
# report: gevent has patched threading
import sys
import threading
import types
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec


class Stand(MetaPathFinder, Loader):
    def find_spec(self, name, path=None, target=None):
        if name in ("gevent", "gevent.monkey"):
            return ModuleSpec(name, self, is_package=name == "gevent")
        return None

    def create_module(self, spec):
        return types.ModuleType(spec.name)

    def exec_module(self, module):
        if module.__name__ == "gevent.monkey":
            module.patch_thread = lambda threading=True: print("patched", threading)


sys.meta_path.append(Stand())
from gevent import monkey  # noqa: E402

monkey.patch_thread(threading=True)
thread = threading.Thread(target=print, args=("in a thread",))
thread.start()
thread.join()
