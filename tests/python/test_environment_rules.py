"""LEAKGUARD=1 with ignore rules from a TOML file."""

import json

import pytest

LEAKY = """
import asyncio

async def known():
    await asyncio.sleep(3600)

async def main():
    asyncio.create_task(known())
    asyncio.create_task(known())
    asyncio.create_task(asyncio.sleep(3600))

asyncio.run(main())
"""

RULES = """
[{table}]
ignore = [
  {{ function = "known", site = "app.py:8", reason = "issue 7" }},
  {{ kind = "thread", reason = "there are none" }},
  {{ function = "sleep", reason = "was to be mended", until = 2024-02-29 }},
]
"""


@pytest.mark.parametrize(
    ("name", "table", "variables"),
    [
        ("pyproject.toml", "tool.leakguard", {}),
        ("rules.toml", "leakguard", {"LEAKGUARD_CONFIG": "rules.toml"}),
    ],
)
def test_rules_hide_and_are_accounted_for(program, tmp_path, name, table, variables):
    (tmp_path / name).write_text(RULES.format(table=table))
    found = program(LEAKY, LEAKGUARD="exit", **variables)
    assert found.returncode == 23
    assert "leakguard: 2 leaks at loop end (2 tasks" in found.stderr
    closing = found.stderr.splitlines()[-3:]
    assert closing == [
        'leakguard: hidden: 1 by rule "function=known site=app.py:8" (issue 7)',
        'leakguard: rule "kind=thread" hid nothing',
        'leakguard: rule "function=sleep" is overdue since 2024-02-29 and hides nothing',
    ]


def test_a_program_whose_leaks_are_all_hidden_ends_as_ever(program, tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[[tool.leakguard.ignore]]\nkind = "task"\nreason = "all of them"\n'
    )
    found = program(LEAKY, LEAKGUARD="exit")
    assert found.returncode == 0
    assert found.stderr == 'leakguard: hidden: 3 by rule "kind=task" (all of them)\n'


def test_the_account_in_a_file_is_a_note(program, tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[[tool.leakguard.ignore]]\nkind = "task"\nreason = "all of them"\n'
    )
    found = program(LEAKY, LEAKGUARD="1", LEAKGUARD_REPORT="found.jsonl")
    assert found.stderr == ""
    [line] = map(json.loads, (tmp_path / "found.jsonl").read_text().splitlines())
    assert line["note"] is True
    assert line["text"] == 'hidden: 3 by rule "kind=task" (all of them)'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[leakguard\n", "rules.toml:1: "),
        ("[leakguard]\n\nignore = [\n", "rules.toml:4: "),
        ("[leakguard]\nrules = []\n", "rules.toml:2: unknown key 'rules'; allowed: ignore"),
        ("leakguard = 3\n", "rules.toml:1: leakguard must be a table"),
        ("[leakguard]\nignore = 3\n", "rules.toml:2: ignore must be a list of tables"),
        (
            '[leakguard]\nignore = [\n{kind="task", reason="x"},\n{kind="taks", reason="y"},\n]\n',
            "rules.toml:4: unknown kind 'taks'",
        ),
        ('[[leakguard.ignore]]\nkind = "task"\n', "the rule has no reason"),
        ('[leakguard]\nignore = [\n "all",\n]\n', "rules.toml:3: a rule is a table like"),
        ("[leakguard]\n# \xff\n".encode("latin-1"), "rules.toml:2: it is not UTF-8"),
    ],
)
def test_a_broken_file_is_one_line_and_no_rule(program, tmp_path, text, complaint):
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "rules.toml").write_bytes(data)
    found = program(LEAKY, LEAKGUARD="1", LEAKGUARD_CONFIG="rules.toml")
    first, *rest = found.stderr.splitlines()
    assert first.startswith(f"leakguard: {tmp_path}/")
    assert complaint in first
    assert first.endswith("no rule of this file is used")
    assert rest[0] == "leakguard: 3 leaks at loop end (3 tasks; waited 0 s)"


def test_a_missing_file_is_said(program, tmp_path):
    found = program(LEAKY, LEAKGUARD="1", LEAKGUARD_CONFIG="none.toml")
    first = found.stderr.splitlines()[0]
    assert first == (
        f"leakguard: LEAKGUARD_CONFIG: {tmp_path}/none.toml: No such file or directory; "
        "no rule is used"
    )


def test_a_pyproject_without_our_table_is_no_matter(program, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    found = program("print(1)", LEAKGUARD="1")
    assert (found.stdout, found.stderr) == ("1\n", "")
