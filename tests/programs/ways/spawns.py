# Child processes by os.posix_spawn, subprocess and asyncio.
# status: 0
import asyncio
import os
import subprocess
import sys

python = [sys.executable, "-c", "import sys; sys.exit(5)"]
pid = os.posix_spawn(python[0], python, os.environ)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(subprocess.run(python, check=False).returncode)
print(subprocess.run("exit 6", shell=True, check=False).returncode)


async def main():
    process = await asyncio.create_subprocess_exec(*python)
    print(await process.wait())


asyncio.run(main())
