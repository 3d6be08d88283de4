"""python -m leakguard show: reports read back from files."""

import json

import pytest

LEAKY = """
import asyncio

async def wait():
    await asyncio.sleep(3600)

async def main():
    for _ in range(3):
        asyncio.create_task(wait())
    asyncio.create_task(asyncio.sleep(3600))

asyncio.run(main())
"""


@pytest.fixture
def reports(program, tmp_path):
    """Two files, of two processes and of one."""
    for name, times in (("a.jsonl", 2), ("b.jsonl", 1)):
        for _ in range(times):
            program(LEAKY, LEAKGUARD="1", LEAKGUARD_REPORT=str(tmp_path / name))
    return ["a.jsonl", "b.jsonl"]


def test_text_groups_by_site_over_processes_and_files(run, reports, tmp_path):
    found = run("-m", "leakguard", "show", *reports, cwd=tmp_path)
    assert found.returncode == 0
    assert found.stdout.startswith("leakguard: 12 leaks of 3 processes in 2 files (12 tasks; 20")
    assert "1. task wait, 9 alive" in found.stdout
    assert "created at app.py:9 in main\n       asyncio.create_task(wait())" in found.stdout
    assert "2. task sleep, 3 alive" in found.stdout
    assert found.stderr == ""


def test_json_has_sites_and_leaks(run, reports, tmp_path):
    found = run("-m", "leakguard", "show", "--format", "json", *reports, cwd=tmp_path)
    data = json.loads(found.stdout)
    assert [(site["kind"], site["count"], site["site"]["line"]) for site in data["sites"]] == [
        ("task", 9, 9),
        ("task", 3, 10),
    ]
    assert len(data["leaks"]) == 12
    assert data["processes"] == 3


def test_collapsed_is_one_line_a_stack(run, reports, tmp_path):
    found = run("-m", "leakguard", "show", "--format", "collapsed", *reports, cwd=tmp_path)
    assert found.stdout.splitlines() == [
        "<module> (app.py:12);main (app.py:9);task wait 9",
        "<module> (app.py:12);main (app.py:10);task sleep 3",
    ]


def test_speedscope_weighs_stacks(run, reports, tmp_path):
    output = tmp_path / "out.json"
    found = run(
        "-m", "leakguard", "show", "--format", "speedscope", "-o", output, *reports, cwd=tmp_path
    )
    assert found.stdout == ""
    data = json.loads(output.read_text())
    assert data["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    [profile] = data["profiles"]
    assert profile["weights"] == [9, 3]
    assert profile["endValue"] == 12
    frames = data["shared"]["frames"]
    named = [[frames[place]["name"] for place in sample] for sample in profile["samples"]]
    assert named == [["<module>", "main", "task wait"], ["<module>", "main", "task sleep"]]
    assert frames[1] == {"name": "main", "file": "app.py", "line": 9}


def test_a_whole_report_is_read_too(run, program, tmp_path):
    program(
        LEAKY.replace("asyncio.run(main())", "")
        + """
import leakguard, pathlib
with leakguard.guard(action=lambda report: pathlib.Path("r.json").write_text(report.to_json())):
    asyncio.run(main())
"""
    )
    found = run("-m", "leakguard", "show", "r.json", cwd=tmp_path)
    assert "leakguard: 4 leaks of 1 process in 1 file" in found.stdout


def test_what_is_no_report_is_named_with_its_line(run, reports, tmp_path):
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"kind": 7}\n')
    found = run("-m", "leakguard", "show", *reports, cwd=tmp_path)
    assert found.returncode == 2
    assert 'a.jsonl:9: not a leakguard report: "kind" must be a string, not 7' in found.stderr
    missing = run("-m", "leakguard", "show", "none.jsonl", cwd=tmp_path)
    assert missing.returncode == 2
    assert "none.jsonl: No such file or directory" in missing.stderr
    assert "Traceback" not in found.stderr + missing.stderr
    (tmp_path / "empty").write_text("")
    empty = run("-m", "leakguard", "show", "empty", cwd=tmp_path)
    assert empty.stdout == "leakguard: no leaks in 1 file\n"
