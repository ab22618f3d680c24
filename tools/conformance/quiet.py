"""Clients that read an HTTP response like a file receive each small event of a quiet stream at once.

    quiet.py NAME COMMAND...

COMMAND URL prints each line of the response body when it arrives.
"""

import os
import subprocess
import sys
import threading
import time
import urllib.request

from checks import Checks

name, command = sys.argv[1], sys.argv[2:]
checks = Checks(name)
HTTP = f"http://{os.environ['FANTAIL_HTTP']}"
# A buffered event would wait for the next keepalive, up to 25 seconds.
AT_ONCE_SECONDS = 2


def publish(channel, text):
    request = urllib.request.Request(f"{HTTP}/publish?channel={channel}", data=text.encode(), method="POST")
    urllib.request.urlopen(request, timeout=10).close()


class Reader:
    def __init__(self, url):
        self.process = subprocess.Popen([*command, url], stdout=subprocess.PIPE, text=True)
        self.lines = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in iter(self.process.stdout.readline, ""):
            self.lines.append(line.rstrip("\n"))

    def wait(self, what, line, seconds):
        until = time.monotonic() + seconds
        while line not in self.lines and time.monotonic() < until:
            time.sleep(0.01)
        checks.that(what, line in self.lines, f"after {seconds} s the lines are {self.lines}")


def small_events_arrive_at_once():
    channel = f"quiet-{name}"
    reader = Reader(f"{HTTP}/events?channel={channel}")
    try:
        reader.wait("the first block", "data: {}", 10)  # an interpreter has to start
        for text in ("a", "bc", "def"):
            time.sleep(0.3)
            publish(channel, text)
            reader.wait(text, f"data: {text}", AT_ONCE_SECONDS)
    finally:
        reader.process.kill()
        reader.process.wait()


checks.run("small events arrive at once", small_events_arrive_at_once)
checks.finish()
