"""The own tests of Centrifugo's SDKs, with the settings that their `docker-compose.yml` gives Centrifugo.

    sdk_suite.py go PROGRAM FOLDER
    sdk_suite.py python PROGRAM FOLDER

FOLDER has the sources of the SDK. Its tests run in a copy, with the address of the server instead of localhost:8000.
"""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile

from checks import Checks
from own_server import OwnServer

# As with Centrifugo's --client.insecure, clients may do everything, and their tokens are not looked at.
OPEN = "\n".join(
    f"allow_{right}_for_{whom} = true"
    for right in ("subscribe", "publish", "history", "presence")
    for whom in ("client", "anonymous")
)
GO = f"""
[channels]
{OPEN}
history_size = 100
history_ttl = "300 s"
allowed_delta_types = ["fossil"]
delta_publish = true
[namespaces.smallhistory]
{OPEN}
history_size = 2
history_ttl = "300 s"
"""
PYTHON = """
[auth]
hmac_secret = "secret"
anonymous = true
personal_channel = true
[channels]
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_presence_for_subscriber = true
allow_history_for_subscriber = true
presence = true
join_leave = true
history_size = 100
history_ttl = "300 s"
allowed_delta_types = ["fossil"]
delta_publish = true
[namespaces.smallhistory]
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_history_for_subscriber = true
history_size = 2
history_ttl = "300 s"
"""
# Whole runs take a few seconds. A test that waits for ever must not take all the time of a case.
SECONDS_MAX = 150

language, program, source = sys.argv[1:]
checks = Checks(f"tests of centrifuge-{language}")


def copied(folder):
    """Copies the sources, which may be read-only, and puts the server's address in the tests."""
    shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    count = 0
    for place, _, names in os.walk(folder):
        os.chmod(place, stat.S_IRWXU)
        for name in names:
            path = os.path.join(place, name)
            if name.endswith("_test.go") or (name.endswith(".py") and os.path.basename(place) == "tests"):
                with open(path) as file:
                    text = file.read()
                count += text.count("localhost:8000")
                with open(path, "w") as file:
                    file.write(text.replace("localhost:8000", os.environ["FANTAIL_HTTP"]))
    checks.that("the tests name the server", count > 10, count)


def run(command, folder):
    try:
        return subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            timeout=SECONDS_MAX,
        ).stdout
    except subprocess.TimeoutExpired as late:
        checks.that("it ends in time", False, f"after {SECONDS_MAX} s")
        return (late.stdout or b"").decode(errors="replace")


def go(folder):
    """Every function and every part of one that has a name of its own is a test."""
    output = run([program, "test", "-count=1", "-json", "."], folder)
    results = {}
    for line in output.splitlines():
        event = json.loads(line) if line.startswith("{") else {}
        test, action = event.get("Test"), event.get("Action")
        if test is None:
            continue
        if action == "output" and results.get(test) is None:
            print(event["Output"], end="")
        elif action in ("run", "pass", "fail", "skip"):
            results[test] = None if action == "run" else action
    for test, result in results.items():
        checks.equal(test, result, "pass")
    checks.equal("tests", len(results), 72)


def python(folder):
    """The modules that talk to a server. All others have servers of their own."""
    output = run([program, "-m", "unittest", "tests.test_client", "tests.test_ready"], folder)
    print(output)
    failures = re.findall(r"^(?:FAIL|ERROR): (.*)$", output, re.MULTILINE)
    checks.equal("failures", failures, [])
    # Without a word about tests that failed or were skipped.
    checks.equal("the last line", output.rstrip().rpartition("\n")[2], "OK")
    ran = re.search(r"^Ran (\d+) tests", output, re.MULTILINE)
    count = int(ran[1]) if ran else 0
    checks.passed += count - len(failures)
    checks.equal("tests", count, 67)


def suite():
    settings = {"go": GO, "python": PYTHON}[language]
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file, tempfile.TemporaryDirectory() as folder:
        file.write(settings)
        file.flush()
        with OwnServer(f"suite-{language}", ("--config", file.name)):
            copied(folder)
            {"go": go, "python": python}[language](folder)


checks.run("suite", suite)
checks.finish()
