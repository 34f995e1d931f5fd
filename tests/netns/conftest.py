# SPDX-License-Identifier: MIT
"""The fixtures "lab" and "house", the logs of a failed test's daemons, and an end that leaves nothing behind."""

import os
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from lab import Lab, sweep  # noqa: E402

LOG_LIMIT = 12000  # characters of one daemon's log in the report
LAST_LINES = 60    # of it in the XML report, for scripts/run-tests.py


def on_signal(number, _):
    raise KeyboardInterrupt(f"signal {number}")


def pytest_configure():
    # as Ctrl-C: fixtures are taken down, namespaces removed
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGHUP, on_signal)
    if os.geteuid() == 0:
        sweep()


def pytest_runtest_setup():
    Lab.everything = [lab for lab in Lab.everything if lab.kept_logs is None]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    for lab in Lab.everything:
        for title, text in lab.logs():
            # the report of the taking down, which is written, copies those of the item before we are asked
            kept = (report if report.when == "teardown" else item).user_properties
            if f"log of {title}" not in dict(kept):
                kept.append((f"log of {title}", "\n".join(text.splitlines()[-LAST_LINES:])))
            if len(text) > LOG_LIMIT:
                half = LOG_LIMIT // 2
                text = f"{text[:half]}\n[... {len(text)} characters ...]\n{text[-half:]}"
            report.sections.append((f"log of {title}", text))


@pytest.fixture
def lab():
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    made = Lab()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def house(whole_house):
    """A module's whole_house (strangers.House), left as it was found by each of its tests."""
    yield whole_house
    whole_house.send_home()
    whole_house.check()
