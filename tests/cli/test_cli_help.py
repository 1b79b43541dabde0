"""What the command line says to someone who does not know it yet."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from routestats.cli._main import COMMANDS, FIRST_STEPS, main, make_parser


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_parse(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert COMMANDS[name].EXAMPLES
    for given, what in COMMANDS[name].EXAMPLES:
        assert f"routestats {name} {given}" in shown
        assert what in shown
        assert make_parser().parse_args([name, *shlex.split(given.partition(" >")[0])])


def test_without_a_command_it_says_what_to_do_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == f"{FIRST_STEPS}\n"
    named = re.findall(r"^  routestats (\w+)", FIRST_STEPS, re.MULTILINE)
    assert len(named) == 5
    assert set(named) <= set(COMMANDS)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("profil tiny", "profile"),
        ("report runs/x --outpt y", "--output"),
        ("profile tiny --data humanevl -o x", "humaneval"),
        ("table mixtral-repetitions x", "mixtral-repetition"),
        ("report study/tiny-humaneval-gsm8", "tiny-humaneval-gsm8k"),
    ],
)
def test_an_error_suggests_the_nearest_name(
    given: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(shlex.split(given))
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err
    assert f"; did you mean {meant}?" in error
    assert error.count("\n") == 1


def test_an_option_that_resembles_none_is_refused_without_a_guess(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["verify", "runs/x", "--zzz"])
    assert "unrecognized arguments: --zzz (see routestats" in capsys.readouterr().err


def test_the_completion_script_of_bash_completes() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "routestats.cli", "completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
    )
    ask = "COMP_WORDS=(routestats rep); COMP_CWORD=1; _shtab_routestats; echo ${COMPREPLY[@]}"
    found = subprocess.run(
        ["bash", "-c", f"{made.stdout}\n{ask}"], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["report"]


def test_the_built_in_model_has_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    from routestats.models import tiny_model

    assert main(["model", "tiny"]) == 0
    assert capsys.readouterr().out == f"{tiny_model()}\n"
