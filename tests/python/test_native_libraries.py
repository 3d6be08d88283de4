"""Libraries that start threads of their own: no crash, no false alarm, and all are counted."""

import sys

import pytest

from leakguard import _core

pytestmark = pytest.mark.skipif(
    not _core.HAS_NATIVE_THREADS, reason="native threads need glibc on x86_64 or aarch64"
)

START = """
import os, time
import leakguard
leakguard.install(kinds=("task", "thread", "native_thread"))
point = leakguard.checkpoint("start")

def settled():
    # The counts are equal as soon as those that are about to end have ended.
    while len(os.listdir("/proc/self/task")) != len(leakguard.snapshot(kinds=KINDS)):
        time.sleep(0.01)
    return leakguard.stats()["native_thread"]["live"]

def assert_clean():
    report = point.leaks(kinds=KINDS, grace=20)
    assert not report, report.text()

KINDS = ("thread", "native_thread")
"""


def passed(result):
    assert (result.returncode, result.stdout) == (0, "ok\n"), result.stderr


def test_numpy_with_openblas(program):
    text = (
        START
        + """
import numpy
square = numpy.ones((1200, 1200))
assert (square @ square)[0, 0] == 1200
live = settled()
assert live == min(os.cpu_count(), 64) - 1 or "openblas" not in open("/proc/self/maps").read(), live
assert_clean()
print("ok")
"""
    )
    passed(program(text))


LZMA = """
import ctypes
library = ctypes.CDLL("liblzma.so.5")
options = (ctypes.c_uint32 * 64)(0, 4)  # threads
options[2] = 1 << 16  # the size of a block
options[10] = 4  # CRC64
stream = (ctypes.c_size_t * 32)()
assert library.lzma_stream_encoder_mt(stream, options) == 0
data = os.urandom(1 << 20)
out = ctypes.create_string_buffer(2 << 20)
stream[0], stream[1] = ctypes.cast(data, ctypes.c_void_p).value, len(data)
stream[3], stream[4] = ctypes.addressof(out), len(out)
assert library.lzma_code(stream, 0) == 0
assert settled() > 0
with_workers = point.leaks(kinds=KINDS)
assert {leak.kind for leak in with_workers} == {"native_thread"}
assert "liblzma.so" in with_workers.text(), with_workers.text()
library.lzma_end(stream)
"""

ZSTD = """
import zstandard
compressor = zstandard.ZstdCompressor(threads=3)
compressor.compress(os.urandom(1 << 22))
assert settled() == 3
assert len(point.leaks(kinds=KINDS)) == 3
del compressor
"""

ZSTD_OF_PYTHON = """
from compression import zstd
options = {zstd.CompressionParameter.nb_workers: 3}
compressor = zstd.ZstdCompressor(options=options)
compressor.compress(os.urandom(1 << 22))
assert settled() == 3
assert len(point.leaks(kinds=KINDS)) == 3
del compressor
"""


@pytest.mark.parametrize(
    "code",
    [LZMA, ZSTD if sys.version_info < (3, 14) else ZSTD_OF_PYTHON],
    ids=["lzma", "zstd"],
)
def test_compression_with_several_threads(program, code):
    passed(program(f"{START}{code}\nassert_clean()\nassert settled() == 0\nprint('ok')\n"))


def test_uvloop(program):
    text = (
        START
        + """
import asyncio, uvloop

async def main():
    await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
    assert settled() == 4
    assert not point.leaks(kinds=KINDS)

uvloop.run(main())
assert_clean()
print("ok")
"""
    )
    passed(program(text))


def test_grpc(program):
    text = (
        START
        + """
import grpc
channel = grpc.insecure_channel("127.0.0.1:1")
try:
    channel.unary_unary("/service/method")(b"", timeout=0.2)
except grpc.RpcError:
    pass
settled()
native = point.leaks(kinds="native_thread", grace=20)
assert not native, native.text()
channel.close()
assert_clean()
settled()
print("ok")
"""
    )
    passed(program(text))
