"""Transports and servers of asyncio's own loops: live until they are closed.

All transports that are written in Python call BaseTransport.__init__, but for the one that the
program gets for a TLS connection: that wraps the socket's, which is the one that is counted.
(asyncio/selector_events.py, unix_events.py, base_subprocess.py, sslproto.py; the same on 3.11 to
3.15.) uvloop's are C types made inside its extension: they are not seen.
"""

from __future__ import annotations

from leakguard import _core, _imports, _resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


class _Transport(_resources.Kind):
    name = "transport"
    lost_at = "loop close"
    why_lost = "nobody closed it before its loop was closed"
    left_at_exit = True

    def hook(self) -> None:
        _imports.after("asyncio.transports", self._hook)
        for module in ("selector_events", "unix_events", "base_subprocess"):
            _imports.after(f"asyncio.{module}", self._hook_ends)

    def _hook(self, module: ModuleType) -> None:
        _resources.see_births(self, module.BaseTransport)
        _core.adopt(self.number, (module.BaseTransport,))

    def _hook_ends(self, module: ModuleType) -> None:
        own = (it for it in vars(module).values() if isinstance(it, type))
        ends = (it for it in own if it.__module__ == module.__name__ and "__del__" in vars(it))
        _resources.see_destruction(self, *(it for it in ends if hasattr(it, "is_closing")))

    def is_live(self, subject: Any) -> bool:
        try:
            if subject.is_closing():
                return False
        except NotImplementedError:
            return False  # a stand-in of a test
        if getattr(subject, "_proc", self) is None:
            return False  # a subprocess that has ended, and its pipes
        wrapper = getattr(_protocol_of(subject), "_app_transport", None)  # TLS
        return wrapper is None or not wrapper.is_closing()

    def is_left(self, subject: Any) -> bool:
        # A pipe of a subprocess belongs to the subprocess' transport.
        return type(_protocol_of(subject)).__module__ != "asyncio.base_subprocess"

    def can_end(self, subject: Any) -> bool:
        return _can_move(self.loop_of(subject))

    def loop_of(self, subject: Any) -> Any:
        return getattr(subject, "_loop", None)

    def definition(self, subject: Any) -> Any:
        protocol = _protocol_of(subject)
        handler = getattr(protocol, "_client_connected_cb", None)  # of a StreamReaderProtocol
        return handler or getattr(type(protocol), "connection_made", None)

    def state(self, subject: Any) -> str | None:
        del subject
        return "open"

    def why(self, subject: Any) -> str:
        peer = self.facts(subject).get("peer")
        return f"nobody closed it: it is connected to {peer}" if peer else "nobody closed it"

    def facts(self, subject: Any) -> dict[str, Any]:
        found = {"protocol": type(_protocol_of(subject)).__qualname__}
        for key, name in (("peername", "peer"), ("sockname", "local"), ("pipe", "pipe")):
            value = subject.get_extra_info(key)
            if value:
                found[name] = address(value)
        return found


class _Server(_resources.Kind):
    name = "server"
    lost_at = "loop close"
    why_lost = "nobody closed it before its loop was closed"
    left_at_exit = True

    def hook(self) -> None:
        _imports.after("asyncio.base_events", self._hook)

    def _hook(self, module: ModuleType) -> None:
        _resources.see_births(self, module.Server)
        _core.adopt(self.number, (module.Server,))

    def is_live(self, subject: Any) -> bool:
        return subject._sockets is not None

    def can_end(self, subject: Any) -> bool:
        return _can_move(self.loop_of(subject))

    def loop_of(self, subject: Any) -> Any:
        return subject._loop

    def state(self, subject: Any) -> str | None:
        return "serving" if subject.is_serving() else "not serving"

    def why(self, subject: Any) -> str:
        places = self.facts(subject)["sockets"]
        return f"nobody closed it: its socket is {', '.join(places)}" if places else ""

    def facts(self, subject: Any) -> dict[str, Any]:
        found = [
            address(socket.getsockname()) for socket in subject.sockets if socket.fileno() >= 0
        ]
        return {"sockets": found}


def address(value: Any) -> str:
    """A socket's address, or a pipe, for people."""
    if isinstance(value, tuple) and len(value) >= 2:
        host = f"[{value[0]}]" if ":" in str(value[0]) else value[0]
        return f"{host}:{value[1]}"
    name = getattr(value, "name", value)
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _protocol_of(transport: Any) -> Any:
    return getattr(transport, "_protocol", None)


def _can_move(loop: Any) -> bool:
    return loop is None or bool(not loop.is_closed() and loop.is_running())


TRANSPORT = _Transport()
SERVER = _Server()
