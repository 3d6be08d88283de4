"""Python code that runs inside a call of the extension uninstalls: the call finds no tracker."""

from textwrap import dedent


def passes(run, body):
    done = run("-X", "faulthandler", "-c", dedent(body))
    assert (done.returncode, done.stdout, done.stderr) == (0, "passed\n", "")


def test_a_path_that_uninstalls_while_its_directory_is_announced(run):
    passes(
        run,
        """
        import sys, leakguard
        from leakguard import _core

        class Path:
            def __fspath__(self):
                _core.uninstall()
                return "/nowhere/at/all"

        leakguard.install(kinds=["tempdir"])
        sys.audit("tempfile.mkdtemp", Path())
        assert not _core.is_installed()
        print("passed")
        """,
    )


def test_a_predicate_that_uninstalls_while_objects_are_adopted(run):
    passes(
        run,
        """
        import asyncio, leakguard
        from leakguard import _core

        async def main():
            task = asyncio.create_task(asyncio.sleep(0))
            leakguard.install()
            _core.adopt(0, (asyncio.Task,), lambda found: _core.uninstall() is None)
            await task

        asyncio.run(main())
        assert not _core.is_installed()
        print("passed")
        """,
    )


def test_a_listener_that_uninstalls_when_it_is_let_go(run):
    passes(
        run,
        """
        import leakguard
        from leakguard import _core

        class Listener:
            def __del__(self):
                _core.uninstall()

        leakguard.install()
        _core.blocking_start(1.0, Listener())
        _core.uninstall()
        assert not _core.is_installed()
        print("passed")
        """,
    )


def test_a_bound_beyond_what_nanoseconds_can_hold_is_never_passed(run):
    passes(
        run,
        """
        import asyncio, select, time, leakguard
        from leakguard import _core

        leakguard.install()
        told = []
        _core.hook_select(select)
        _core.blocking_start(1e12, told.append)

        async def main():
            for _ in range(3):
                time.sleep(0.001)
                await asyncio.sleep(0)

        asyncio.run(main())
        _core.blocking_stop()
        assert told == []
        print("passed")
        """,
    )
