#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Runs the test suites in order and ends with one line: "N passed, N failed".

usage: run-tests.py [SUITE...]      default: all but asan-netns

  unit        tests/unit, every cmocka program of the release build
  sim         tests/sim, the same build
  asan        unit and sim under the address and undefined-behaviour sanitizers
  tsan        test_plane_* and sim under the thread sanitizer
  fuzz        every fuzzer: its corpus, then FUZZ_SECONDS (default 3) of new inputs
  netns       tests/netns: real daemons in network namespaces (root)
  asan-netns  the same with the sanitized daemon
  scripts     tests/scripts

A program counts its own tests through cmocka's XML report; one that writes none
counts as one test. A crash, a time-out, a suite that finds no test although it has
files, and a skipped test (what did not run has not passed) count as failed.

Environment: FUZZ_SECONDS, JOBS (programs at once, default: number of CPUs),
TEST_ARGS (more arguments for pytest, e.g. "-k roaming -x").
"""

import concurrent.futures
import glob
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEFAULT = ["unit", "sim", "asan", "tsan", "fuzz", "netns", "scripts"]
JOBS = int(os.environ.get("JOBS") or os.cpu_count() or 1)
FUZZ_SECONDS = int(os.environ.get("FUZZ_SECONDS") or 3)
BUILD_SECONDS = 900
OUTPUT_LIMIT = 20000
FAILURE_LINES, ERROR_LINES, LINE_LIMIT = 60, 25, 500  # of what is shown of one failed pytest

SANITIZER_ENV = {
    "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


class Tally:
    """What one suite has counted; programs report to it from several threads."""

    def __init__(self, suite):
        self.suite = suite
        self.passed = 0
        self.failed = 0
        self.lock = threading.Lock()

    def add(self, name, passed, problems, output, seconds):
        """problems: one line for each failed test"""
        with self.lock:
            self.passed += passed
            self.failed += len(problems)
            if not problems:
                say(f"  ok      {name}: {passed} passed ({seconds:.1f} s)")
                return
            say(f"  FAILED  {name}: {passed} passed, {len(problems)} failed ({seconds:.1f} s)")
            for problem in problems:
                say("    " + problem.strip().replace("\n", "\n      "))
            output = output.strip()
            if len(output) > OUTPUT_LIMIT:
                half = OUTPUT_LIMIT // 2
                output = f"{output[:half]}\n[... {len(output)} characters ...]\n{output[-half:]}"
            if output:
                say("    output:\n      " + output.replace("\n", "\n      "))

    def fail(self, name, problem, output=""):
        self.add(name, 0, [problem], output, 0)


def say(text):
    print(text, flush=True)


def environment(build):
    """The variables which setup-openssl.sh wrote, and where the build lies."""
    script = '. "$0/.setup/openssl.env" && env -0'
    text = subprocess.run(["sh", "-c", script, TOP], check=True, stdout=subprocess.PIPE).stdout
    env = dict(item.split("=", 1) for item in os.fsdecode(text).split("\0") if "=" in item)
    for name, value in SANITIZER_ENV.items():
        env.setdefault(name, value)
    env["SM_BUILD"] = os.path.join(TOP, build)
    env["SM_SOURCE"] = TOP
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    # a make that a test starts is not part of the one that runs us
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        env.pop(name, None)
    return env


def run(command, env, timeout, cwd=TOP):
    """Runs a command in a process group of its own; returns (status, output).

    The status is the exit code, or a word about why there is none.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = f"no end after {timeout} s"
        finally:
            # also on success: nothing that a test started outlives it
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        log.seek(0)
        output = log.read().decode(errors="replace")
    if isinstance(status, int) and status < 0:
        status = f"killed by {signal.Signals(-status).name}"
    return status, output


def build(tally, kind):
    """Builds one folder; a failure counts and ends the suite."""
    folder = "build" if kind == "release" else "build-" + kind
    status, output = run(["scripts/build.sh", "-q", kind, folder], os.environ, BUILD_SECONDS)
    if status == 0:
        return folder
    tally.fail(f"build of {folder}", f"scripts/build.sh {kind}: {status}", output)
    return None


def ends(lines, count):
    """The first and the last ones where there are more than count."""
    if len(lines) <= count:
        return lines
    return [*lines[:count // 2], f"[... {len(lines) - count + 1} lines ...]",
            *lines[len(lines) - (count - count // 2 - 1):]]


def pytest_failure(case, bad):
    """A failed test of pytest in FAILURE_LINES: the lines of the assertion, where it was, and the ends of the
    daemons' logs, which tests/netns/conftest.py leaves as properties."""
    text = (bad.text or bad.get("message") or "").splitlines()
    errors = [line for line in text if re.match(r"E( |$)", line)] or text[-ERROR_LINES:]
    places = [line for line in text if re.match(r">|\S+\.py:\d+:", line)]
    shown = ends(errors, ERROR_LINES) + ends(places, 10)
    logs = [(one.get("name"), one.get("value").splitlines()) for one in case.iter("property")
            if one.get("name", "").startswith("log of ")]
    for at, (title, lines) in enumerate(logs):
        room = (FAILURE_LINES - len(shown) - 1) // (len(logs) - at) - 1
        if room > 0:
            shown += [title + ":", *("  " + line for line in lines[-room:])]
    return "\n".join(line[:LINE_LIMIT] for line in shown)


def read_report(path, describe=None):
    """Counts a JUnit-like report (cmocka's or pytest's): (passed, problems).

    describe: makes the text of a problem from a test case and its failure; by default all that stands there
    """
    passed, problems = 0, []
    # cmocka writes a document for each group, one after the other
    with open(path, errors="replace") as file:
        text = file.read()
    for part in text.split("<?xml")[1:]:
        for case in ElementTree.fromstring("<?xml" + part).iter("testcase"):
            name = case.get("name")
            if case.get("classname"):
                name = case.get("classname") + "." + name
            bad = [child for child in case if child.tag in ("failure", "error", "skipped")]
            if not bad:
                passed += 1
                continue
            detail = bad[0].get("message") or bad[0].text or ""
            if bad[0].tag == "failure":
                detail = bad[0].text or detail
            if describe:
                detail = "\n" + describe(case, bad[0])
            problems.append(f"{name}: {bad[0].tag}: {detail}")
    return passed, problems


def run_program(tally, folder, program, timeout, must_report):
    """One test program: a cmocka one counts its tests itself."""
    name = os.path.basename(program)
    with tempfile.TemporaryDirectory(prefix="sm-test-") as scratch:
        plain = environment(folder)
        env = dict(plain)
        env["CMOCKA_MESSAGE_OUTPUT"] = "XML"
        env["CMOCKA_XML_FILE"] = os.path.join(scratch, "%g.xml")
        env["TMPDIR"] = scratch
        begin = time.monotonic()
        status, output = run([program], env, timeout)
        seconds = time.monotonic() - begin
        passed, problems = 0, []
        reports = glob.glob(os.path.join(scratch, "*.xml"))
        for report in reports:
            try:
                more, bad = read_report(report)
            except (ElementTree.ParseError, OSError) as error:
                more, bad = 0, [f"unreadable report {os.path.basename(report)}: {error}"]
            passed += more
            problems += bad
    if status != 0 and not problems:
        problems.append(f"{name}: exit status: {status}")
        if not reports and must_report:
            # cmocka writes its report at the end; its other output names the test
            output += "\nonce more, in plain words:\n" + run([program], plain, timeout)[1]
    elif passed + len(problems) == 0:
        if reports or must_report:
            problems.append(f"{name}: ran no test")
        else:
            passed = 1
    tally.add(name, passed, problems, output, seconds)


def run_programs(tally, folder, kinds, only="", timeout=120):
    """Runs the programs of tests/KIND for each (KIND, PREFIX) of kinds."""
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        work = []
        for kind, prefix in kinds:
            stem = only if kind == "unit" and only else prefix
            for source in sorted(glob.glob(f"{TOP}/tests/{kind}/{stem}*.c")):
                name = os.path.splitext(os.path.basename(source))[0]
                program = f"{TOP}/{folder}/tests/{kind}/{name}"
                work.append(pool.submit(run_program, tally, folder, program,
                                        timeout if kind == "unit" else 3 * timeout,
                                        kind == "unit"))
        for item in work:
            item.result()


def run_fuzzer(tally, folder, source):
    name = os.path.splitext(os.path.basename(source))[0]
    program = f"{TOP}/{folder}/tests/fuzz/{name}"
    corpus = f"{TOP}/tests/fuzz/corpus/{name[len('fuzz_'):]}"
    if not glob.glob(corpus + "/*"):
        tally.fail(name, f"{name}: no corpus in {os.path.relpath(corpus, TOP)}")
        return
    env = environment(folder)
    artifacts = f"{TOP}/{folder}/found/"
    os.makedirs(artifacts, exist_ok=True)
    common = [program, "-timeout=10", "-rss_limit_mb=2048", f"-artifact_prefix={artifacts}{name}-"]

    begin = time.monotonic()
    status, output = run(common + ["-runs=0", corpus], env, 120)
    problems = [] if status == 0 else [f"{name}: corpus: {status}"]
    tally.add(f"{name} corpus", 1 - len(problems), problems, output, time.monotonic() - begin)

    with tempfile.TemporaryDirectory(prefix="sm-fuzz-") as scratch:
        begin = time.monotonic()
        status, output = run(common + [f"-max_total_time={FUZZ_SECONDS}", scratch, corpus], env,
                             FUZZ_SECONDS + 120)
    problems = [] if status == 0 else [f"{name}: {FUZZ_SECONDS} s of new inputs: {status}"]
    tally.add(f"{name} search", 1 - len(problems), problems, output, time.monotonic() - begin)


def run_pytest(tally, folder, where, timeout):
    env = environment(folder)
    with tempfile.TemporaryDirectory(prefix="sm-test-") as scratch:
        report = os.path.join(scratch, "report.xml")
        env["TMPDIR"] = scratch
        begin = time.monotonic()
        status, output = run(
            ["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=120",
             "--durations=5", "--junitxml=" + report, where]
            + shlex.split(os.environ.get("TEST_ARGS", "")), env, timeout)
        seconds = time.monotonic() - begin
        try:
            passed, problems = read_report(report, pytest_failure)
        except (OSError, ElementTree.ParseError):
            passed, problems = 0, []
    if problems:
        # whole tracebacks and logs: too long to be found again in a CI's output
        path = os.path.join(TOP, folder, os.path.basename(where) + ".log")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(output)
        output = "all that pytest printed: " + os.path.relpath(path, TOP)
    if status != 0 and not problems:
        problems.append(f"pytest {where}: exit status: {status}")
    elif passed + len(problems) == 0:
        problems.append(f"pytest {where}: ran no test")
    tally.add(where, passed, problems, output, seconds)


def suite_unit(tally):
    folder = build(tally, "release")
    if folder:
        run_programs(tally, folder, [("unit", "test_")])


def suite_sim(tally):
    folder = build(tally, "release")
    if folder:
        run_programs(tally, folder, [("sim", "sim_")])


def suite_asan(tally):
    folder = build(tally, "asan")
    if folder:
        run_programs(tally, folder, [("unit", "test_"), ("sim", "sim_")], timeout=200)


def suite_tsan(tally):
    folder = build(tally, "tsan")
    if folder:
        run_programs(tally, folder, [("unit", "test_"), ("sim", "sim_")], only="test_plane_",
                     timeout=200)


def suite_fuzz(tally):
    folder = build(tally, "fuzz")
    if not folder:
        return
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for item in [pool.submit(run_fuzzer, tally, folder, source)
                     for source in sorted(glob.glob(TOP + "/tests/fuzz/fuzz_*.c"))]:
            item.result()


def netns(tally, kind):
    if os.geteuid() != 0:
        tally.fail("netns", "network namespaces need root; cure: sudo make test")
        return
    folder = build(tally, kind)
    if folder:
        run_pytest(tally, folder, "tests/netns", 1800)


def suite_scripts(tally):
    run_pytest(tally, "build", "tests/scripts", 300)


# Each suite: how it runs, and which files mean that it has tests.
SUITES = {
    "unit": (suite_unit, ["unit/test_*.c"]),
    "sim": (suite_sim, ["sim/sim_*.c"]),
    "asan": (suite_asan, ["unit/test_*.c", "sim/sim_*.c"]),
    "tsan": (suite_tsan, ["unit/test_plane_*.c", "sim/sim_*.c"]),
    "fuzz": (suite_fuzz, ["fuzz/fuzz_*.c"]),
    "netns": (lambda tally: netns(tally, "release"), ["netns/test_*.py"]),
    "asan-netns": (lambda tally: netns(tally, "asan"), ["netns/test_*.py"]),
    "scripts": (suite_scripts, ["scripts/*"]),
}


def main():
    chosen = sys.argv[1:] or DEFAULT
    unknown = [name for name in chosen if name not in SUITES]
    if unknown or "-h" in chosen or "--help" in chosen:
        print(__doc__, file=sys.stderr)
        return 2
    if not os.path.exists(TOP + "/.setup/openssl.env"):
        subprocess.run([TOP + "/scripts/setup.sh", "test"], check=True)

    begin = time.monotonic()
    tallies = []
    for name in chosen:
        tally = Tally(name)
        tallies.append(tally)
        say(f"== {name}")
        function, files = SUITES[name]
        if not any(glob.glob(f"{TOP}/tests/{pattern}") for pattern in files):
            say("  nothing there")
            continue
        function(tally)
        if tally.passed + tally.failed == 0:
            tally.fail(name, f"{name}: there are files, but no test ran")

    say(f"== summary ({time.monotonic() - begin:.0f} s)")
    for tally in tallies:
        say(f"  {tally.suite:<11} {tally.passed:>5} passed  {tally.failed:>3} failed")
    passed = sum(tally.passed for tally in tallies)
    failed = sum(tally.failed for tally in tallies)
    if passed + failed == 0:
        failed = 1
        say("  no test ran at all")
    say(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    if shutil.which("ninja") is None:
        sys.exit("run-tests: the machine is not set up; cure: make test")
    sys.exit(main())
