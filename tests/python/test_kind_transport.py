"""Transports and servers of asyncio's own loops that nobody closed."""

import asyncio
import gc
import socket
import ssl
import sys

import pytest

import leakguard
from leakguard import LeakError

KINDS = ("transport", "server")

# Of localhost, made for this test; nobody trusts it.
KEY_AND_CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgORHs6roYDO7HJAgp
r3+rmpj5OYnkieTvp3SUVCqJMLihRANCAASUyHvoSPQuGEhcjQyi+T0s6n30AUSx
piW4V1KeLtkUAVaBlvPYNRRKUriFrtqVB6Rt8lgBPTefoV01YA98pHLt
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBlTCCATugAwIBAgIUS18uoklNawJhBVuIbGjP3FKNn3YwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNDIzMjIxMFoYDzIxMjYxMDMx
MjMyMjEwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASUyHvoSPQuGEhcjQyi+T0s6n30AUSxpiW4V1KeLtkUAVaBlvPYNRRK
UriFrtqVB6Rt8lgBPTefoV01YA98pHLto2kwZzAdBgNVHQ4EFgQUFvABxKuPFr+b
CMtzTPZ3n/sUvfcwHwYDVR0jBBgwFoAUFvABxKuPFr+bCMtzTPZ3n/sUvfcwDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwID
SAAwRQIgPnnw6cukLEF/rNLGL/Lgk4jBJoFN7xLCMCRBPCjZ/6oCIQDjr7XYFElH
rdqW3nrT0y03aUwWr/D9z6fZaMcgkLNxxA==
-----END CERTIFICATE-----
"""


def here():
    return sys._getframe(1).f_lineno


async def answer(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()


def test_a_connection_that_nobody_closed_is_a_leak():
    async def main():
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with leakguard.guard(kinds=KINDS, grace=0.05):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                found.append((here() - 1, port))
                writer.write(b"x\n")
                assert await reader.readline() == b"x\n"
            writer.close()

    found = []
    with pytest.raises(LeakError) as caught:
        asyncio.run(main())
    (leak,) = caught.value.report
    ((line, port),) = found
    assert (leak.kind, leak.state, leak.site.lineno) == ("transport", "open", line)
    assert leak.function == "_SelectorSocketTransport"
    assert leak.facts["peer"] == f"127.0.0.1:{port}"
    assert leak.facts["protocol"] == "StreamReaderProtocol"
    assert leak.why == f"nobody closed it: it is connected to 127.0.0.1:{port}"


def test_a_handler_that_does_not_close_its_connection_is_one():
    async def keeps_open(reader, writer):
        kept.append(writer)

    async def main():
        async with await asyncio.start_server(keeps_open, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            try:
                async with leakguard.guard(kinds=KINDS, grace=0.05):
                    writer = (await asyncio.open_connection("127.0.0.1", port))[1]
                    writer.write(b"x")
                    while not kept:
                        await asyncio.sleep(0.001)
            finally:
                kept[0].close()
                writer.close()

    kept = []
    with pytest.raises(LeakError) as caught:
        asyncio.run(main())
    report = caught.value.report
    assert len(report) == 2
    line = keeps_open.__code__.co_firstlineno
    assert line in [leak.site.lineno for leak in report]
    assert "created by the event loop" in str(caught.value)


def test_what_is_closed_is_none():
    async def main():
        async with leakguard.guard(kinds=KINDS, grace=5):
            async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
                port = server.sockets[0].getsockname()[1]
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"x\n")
                await reader.readline()
                writer.close()

    asyncio.run(main())


def test_a_server_that_nobody_closed_is_a_leak():
    async def main():
        async with leakguard.guard(kinds=KINDS, grace=0.05):
            server = await asyncio.start_server(answer, "127.0.0.1", 0)
            found.append((here() - 1, server))
        raise AssertionError

    found = []
    with pytest.raises(LeakError) as caught:
        asyncio.run(main())
    (leak,) = caught.value.report
    assert (leak.kind, leak.state, leak.function) == ("server", "serving", "Server")
    assert leak.site.lineno == found[0][0]
    assert leak.why.startswith("nobody closed it: its socket is 127.0.0.1:")
    found[0][1].close()


def test_what_is_lost_with_its_loop_is_a_leak():
    async def main():
        kept.append(await asyncio.start_server(answer, "127.0.0.1", 0))
        lines.append(here() - 1)
        kept.append(await asyncio.open_connection(*kept[0].sockets[0].getsockname()))
        lines.append(here() - 1)

    async def answer(reader, writer):
        pass

    kept, lines = [], []
    with pytest.raises(LeakError) as caught:
        with leakguard.guard(kinds=KINDS, grace=0.01):
            asyncio.run(main())
    report = caught.value.report
    # The server's side of the connection may have been accepted by then, or not.
    assert set(lines) <= {leak.site.lineno for leak in report}
    assert {leak.why for leak in report} == {"nobody closed it before its loop was closed"}
    kept[0].close()


def test_pipes_belong_to_their_subprocess():
    async def main():
        async with leakguard.guard(kinds=KINDS, grace=0.05):
            process = await asyncio.create_subprocess_exec(
                "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            found.append((here() - 3, process))

    async def both():
        with pytest.raises(LeakError) as caught:
            await main()
        await found[0][1].communicate(b"")
        return caught.value.report

    found = []
    (leak,) = asyncio.run(both())
    assert (leak.kind, leak.function) == ("transport", "_UnixSubprocessTransport")
    assert leak.site.lineno == found[0][0]


def test_a_subprocess_that_has_ended_is_none():
    async def main():
        async with leakguard.guard(kinds=KINDS, grace=5):
            process = await asyncio.create_subprocess_exec("true", stdout=asyncio.subprocess.PIPE)
            await process.communicate()

    asyncio.run(main())


class Fake(asyncio.Transport):
    """A stand-in of a test: no is_closing."""


class Slotted(asyncio.BaseTransport):
    __slots__ = ()


def test_stand_ins_are_none():
    with leakguard.guard(kinds=KINDS, grace=0.01):
        kept = [Fake(), Slotted()]
    assert len(kept) == 2


def test_datagrams():
    async def main():
        loop = asyncio.get_running_loop()
        async with leakguard.guard(kinds=KINDS, grace=0.01):
            kept.append(
                await loop.create_datagram_endpoint(
                    asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
                )
            )
            other = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
            )
            other[0].close()

    kept = []
    with pytest.raises(LeakError) as caught:
        asyncio.run(main())
    (leak,) = caught.value.report
    assert leak.function == "_SelectorDatagramTransport"
    assert leak.facts["local"].startswith("127.0.0.1:")


def test_nothing_is_replaced_after_uninstall():
    from asyncio import base_events, base_subprocess, selector_events, transports, unix_events

    def state():
        return [
            (name, vars(found).get("__init__"), vars(found).get("__del__"))
            for module in (base_events, base_subprocess, selector_events, transports, unix_events)
            for name, found in vars(module).items()
            if isinstance(found, type)
        ]

    before = state()
    leakguard.install(kinds=KINDS)
    assert state() != before
    leakguard.uninstall()
    assert state() == before


def test_the_counters_balance():
    async def main():
        left, right = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=left)
        right.close()
        await reader.read()
        writer.close()
        await writer.wait_closed()

    leakguard.install(kinds=KINDS)
    asyncio.run(main())
    counts = leakguard.stats()["transport"]
    assert counts["created"] == counts["ended"] + counts["live"]
    assert counts["created"] >= 1


def test_a_transport_that_was_freed_before_it_was_closed_is_a_leak():
    async def main():
        left, right = socket.socketpair()
        with right:
            transport, _ = await asyncio.get_running_loop().create_connection(
                asyncio.Protocol, sock=left
            )
            lines.append(here() - 3)
            await asyncio.sleep(0.01)
            transport.pause_reading()
            del transport
            gc.collect()

    lines = []
    with pytest.raises(LeakError) as caught, pytest.warns(ResourceWarning):
        with leakguard.guard(kinds="transport", grace=0.01):
            asyncio.run(main())
    (leak,) = caught.value.report
    assert (leak.state, leak.site.lineno) == ("destroyed", lines[0])


def test_a_tls_connection_is_one_transport(tmp_path):
    async def keep(reader, writer):
        kept.append(writer)
        writer.write(await reader.readline())

    async def main():
        server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_side.load_cert_chain(certificate)
        client_side = ssl.create_default_context(cafile=str(certificate))
        async with await asyncio.start_server(keep, "127.0.0.1", 0, ssl=server_side) as server:
            port = server.sockets[0].getsockname()[1]
            address = {"host": "127.0.0.1", "port": port, "server_hostname": "localhost"}
            async with leakguard.guard(kinds=("timer", "transport"), grace=5):
                reader, writer = await asyncio.open_connection(**address, ssl=client_side)
                writer.write(b"x\n")
                assert await reader.readline() == b"x\n"
                kept.pop().close()
                writer.close()
            try:
                async with leakguard.guard(kinds=("timer", "transport"), grace=0.05):
                    reader, writer = await asyncio.open_connection(**address, ssl=client_side)
                    lines.append(here() - 1)
                    writer.write(b"x\n")
                    assert await reader.readline() == b"x\n"
            finally:
                kept.pop().close()  # the server's end waits for it

    kept, lines = [], []
    certificate = tmp_path / "both.pem"
    certificate.write_text(KEY_AND_CERTIFICATE)
    with pytest.raises(LeakError) as caught:
        asyncio.run(main())
    assert [
        leak.site.lineno
        for leak in caught.value.report
        if not leak.site.filename.startswith("/usr")
    ]
