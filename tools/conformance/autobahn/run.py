"""Autobahn's fuzzing client against the echo service: every case must pass. It has no cases 8 and 11."""

import collections
import json
import os
import subprocess
import sys

WORK = os.environ["CONFORMANCE_WORK"]
DRIVER = os.environ["CONFORMANCE_DRIVER"]
QUICK = os.environ.get("CONFORMANCE_QUICK") == "1"
GOOD = {"OK", "INFORMATIONAL"}
GROUPS = [1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 13]
SLOW = ["9.*", "12.*", "13.*"]
# All cases of compression, a thousand messages each, take a quarter of an hour. By default there are those of messages
# of 16, 256 and 4096 bytes, and of 8192 in fragments, with each way to offer it.
FULL = os.environ.get("CONFORMANCE_FULL") == "1"
COMPRESSION = ["12.*", "13.*"] if FULL else [
    f"{offer}.{size}" for offer in ["12.1", *(f"13.{at}" for at in range(1, 8))] for size in (1, 3, 5, 11)
]


def main():
    url = os.environ.get("FANTAIL_ECHO_URL", "ws://" + os.environ["FANTAIL_ECHO"])
    reports = os.path.join(WORK, "autobahn-reports", DRIVER + "-" + url.split(":")[0])
    os.makedirs(reports, exist_ok=True)
    index = os.path.join(reports, "index.json")
    # An index of an earlier run must not be mistaken for that of this run.
    if os.path.exists(index):
        os.remove(index)
    specification = os.path.join(reports, "fuzzingclient.json")
    with open(specification, "w") as file:
        json.dump(
            {
                "outdir": reports,
                "servers": [{"agent": "fantail", "url": url}],
                "cases": [f"{group}.*" for group in GROUPS if group < 12] + COMPRESSION,
                "exclude-cases": SLOW if QUICK or url.startswith("wss") else [],
                "exclude-agent-cases": {},
            },
            file,
        )
    wstest = os.path.join(WORK, "autobahn", "bin", "wstest")
    with open(os.path.join(reports, "wstest.log"), "w") as log:
        subprocess.run(
            [wstest, "-m", "fuzzingclient", "-s", specification],
            cwd=reports, stdout=log, stderr=log, timeout=1200, check=True,
        )
    with open(index) as file:
        # If the server could not be reached, every group is missing.
        cases = json.load(file).get("fantail", {})
    return judge(cases, QUICK or url.startswith("wss"))


def judge(cases, is_quick):
    passed = failed = 0
    groups = collections.Counter()
    for name in sorted(cases, key=lambda name: [int(part) for part in name.split(".")]):
        case = cases[name]
        outcome = case["behavior"], case["behaviorClose"]
        groups[name.split(".")[0]] += 1
        if set(outcome) <= GOOD:
            passed += 1
        else:
            failed += 1
            print("FAIL autobahn {}: {}, close {}, see {}".format(name, *outcome, case["reportfile"]))
    expected = {str(group) for group in GROUPS if not (is_quick and f"{group}.*" in SLOW)}
    for group in sorted(expected - set(groups), key=int):
        failed += 1
        print(f"FAIL autobahn: no case of group {group} ran")
    print(f"autobahn: {passed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
