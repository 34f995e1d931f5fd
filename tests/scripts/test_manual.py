# SPDX-License-Identifier: MIT
"""The manual pages know every word of what they describe. Environment: SM_BUILD, SM_SOURCE."""

import os
import re
import subprocess

import pytest

SOURCE = os.environ.get("SM_SOURCE", os.path.join(os.path.dirname(__file__), "..", ".."))
PROGRAM = os.path.join(os.environ["SM_BUILD"], "shadowmesh")
NOT_PRINTED = {"re", "none"}  # how a file is opened; a reason that is never counted


def read(path):
    with open(os.path.join(SOURCE, path), encoding="utf-8") as file:
        return file.read()


def manual():
    """The words of shadowmesh(1) that may be names in JSON"""
    text = re.sub(r'\.\\".*', "", read("man/shadowmesh.1"))
    return set(re.findall(r"[a-z][a-z0-9_-]*", text))


def literals(path):
    """Strings of a C file that are one word, and so a name or a value of JSON"""
    return set(re.findall(r'"([a-z][a-z0-9_-]*)"', read(path))) - NOT_PRINTED


@pytest.mark.parametrize("path", ["src/daemon/status.c", "src/cli/version.c"])
def test_every_json_name_is_in_the_manual(path):
    names = literals(path)
    assert len(names) > 3
    assert not names - manual()


@pytest.mark.parametrize("path, table", [("src/core/switch.c", "drop_names"),
                                         ("src/core/peer.c", "state_names"),
                                         ("src/core/path.c", "state_names"),
                                         ("src/plane/plane.c", "stage_names"),
                                         ("src/wire/ctrl.c", "close_reason_names")])
def test_every_named_thing_is_in_the_manual(path, table):
    found = re.search(rf"{table}\[\] = {{(.*?)}};", read(path), re.S)
    names = set(re.findall(r'= "([a-z0-9_-]+)"', found[1])) - NOT_PRINTED
    assert len(names) >= 3
    assert not names - manual()


def commands():
    """Every command that the program lists, `ca` and `config` with those below them"""
    def listed(*words):
        text = subprocess.run([PROGRAM, *words, "--help"], capture_output=True, text=True, timeout=60,
                              check=True).stdout
        return re.findall(r"^  (?!shadowmesh)([a-z]+) ", text, re.M)  # not the examples

    top = listed()
    assert {"up", "down", "ca", "config"} <= set(top)
    return [*top, *(f"ca {one}" for one in listed("ca")), *(f"config {one}" for one in listed("config"))]


def test_every_command_is_in_the_manual():
    marked = set(re.findall(r"[a-z]+", " ".join(re.findall(r"^\.(?:It )?Cm (.*)", read("man/shadowmesh.1"), re.M))))
    assert not {word for command in commands() for word in command.split()} - marked
