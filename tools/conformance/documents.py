"""The code blocks of the documents that need a browser, packages, other compilers or root: those marked `conformance`.

All other blocks are run by `cargo test --test documents`, which also sees to it that each block is run by something.
"""

import contextlib
import glob
import os
import re
import socket
import subprocess
import tempfile
import time
import urllib.request

from checks import Checks
from own_server import OwnServer, free_port

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "../.."))
WORK = os.environ["CONFORMANCE_WORK"]
checks = Checks("documents")


def blocks():
    """Yields the document, language and text of each marked block."""
    for path in sorted(glob.glob(f"{ROOT}/*.md") + glob.glob(f"{ROOT}/s*/**/*.md", recursive=True)):
        with open(path) as file:
            text = file.read()
        for language, block in re.findall(r"^```(\w+) conformance\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            yield os.path.relpath(path, ROOT), language, block


def http():
    return os.environ["FANTAIL_HTTP"]


def here(block):
    """Replaces the address with that of this run's server."""
    return block.replace("127.0.0.1:8000", http())


def ask(path, body=None):
    with urllib.request.urlopen(f"http://{http()}{path}", body, 10) as response:
        return response.read().decode()


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def succeeds(what, command, **options):
    ended = run(command, **options)
    checks.equal(what, (ended.returncode, ended.stderr[-300:] if ended.returncode else ""), (0, ""))
    return ended.stdout


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def shell(document, block, folder):
    """Installs below a folder; skips the commands that need a booted system."""
    if document == "README.md":
        succeeds("cargo install", ["bash", "-ec", block.split(" #")[0] + f" --quiet --root {folder}"], cwd=ROOT)
        checks.that("installs fantail", "fantail" in run([f"{folder}/bin/fantail", "--version"]).stdout)
        checks.equal("and no other file", os.listdir(f"{folder}/bin"), ["fantail"])
        return
    # The server under test may have another file name.
    server = os.environ["FANTAIL_SERVER"]
    block = block.replace("target/release/fantail /usr/local/bin/", f"{server} /usr/local/bin/fantail")
    for place in ("/usr/local/bin/", "/etc/sysctl.d/", "/etc/systemd/system/"):
        os.makedirs(folder + place)
        block = block.replace(place, folder + place)
    # These would change this host.
    block = "sysctl() { :; }; systemctl() { :; }\n" + block
    succeeds("the unit is installed", ["bash", "-ec", block], cwd=ROOT)
    unit = f"{folder}/etc/systemd/system/fantail.service"
    with open(unit) as file:
        text = file.read().replace("/usr/local/bin/", f"{folder}/usr/local/bin/")
    succeeds("systemd takes it", ["systemd-analyze", "verify", write(folder, "fantail.service", text)])


def browser(_, block, folder):
    """The page logs each publication once per transport."""
    page = here(block if block.startswith("<script") else f"<script>{block}</script>")
    ways = block.count("console.log")
    path = write(folder, "page.html", f"<!doctype html>{page}")
    node = ["node", f"{WORK}/node/document.mjs", path, str(ways)]
    heard = succeeds("a page in Chromium", node, env={**os.environ, "NODE_PATH": f"{WORK}/node/node_modules"})
    checks.equal("receives the publications", heard.split(), ['{"n":1}'] * ways)


def backend(block, command, document):
    """A backend that answers callbacks: centrifuge-js and centrifuge-python see what it says."""
    with open(f"{ROOT}/{document}") as file:
        settings = re.search(r"^```toml callbacks.toml\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)[1]
    port = free_port()
    # It is asked about clients again after two seconds, and may take as long as a loaded host does.
    block = re.sub("SECONDS = 600", "SECONDS = 2", block).replace("3000", str(port))
    settings = settings.replace("127.0.0.1:3000", f"127.0.0.1:{port}").replace("1 s", "10 s")
    with tempfile.TemporaryDirectory() as folder:
        program = subprocess.Popen([command, write(folder, "backend.mjs" if command == "node" else "backend.py", block)],
                                   stderr=subprocess.DEVNULL)
        options = ("--workers", "2", "--config", write(folder, "callbacks.toml", settings))
        try:
            until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
            with OwnServer("backend", options):
                for client in (["node", f"{WORK}/node/backend_client.mjs"],
                               [f"{WORK}/python/bin/python", f"{HERE}/backend_client.py"]):
                    heard = succeeds(f"{client[0]} with {command}", client).split("\n")[:-1]
                    checks.equal(f"what a backend in {command} says to {os.path.basename(client[1])}", heard, BACKEND_SAYS)
        finally:
            program.terminate()
            program.wait(10)


# What each client prints.
BACKEND_SAYS = [
    "stranger 4501", "anna connected", "private subscribed", "ben 403", "heard hello by anna", "no text 1000", "add 3",
    "unknown 404", "ben 3005", "anna goes on",
]


def javascript(document, block, folder):
    if "createServer" in block:
        return backend(block, "node", document)
    if "import " not in block:
        return browser(document, block, folder)
    # Node searches packages from the folder of the program.
    path = write(f"{WORK}/node", "document_client.mjs", here(block))
    with subprocess.Popen(["node", path], stdout=subprocess.PIPE, text=True) as node:
        until(lambda: subscriptions() > 0)
        ask("/publish?channel=a", b"hello")
        checks.equal("Node receives the publication", node.stdout.readline(), "hello\n")
        node.terminate()


def python(document, block, folder):
    if "http.server" in block:
        return backend(block, "python3", document)
    path = write(folder, "client.py", here(block))
    checks.equal("Python receives its own publication", succeeds("Python", [f"{WORK}/python/bin/python", path]), "hello\n")


def publishes(language, command, **options):
    """A program that publishes to the channel news."""
    position = re.search(r'"position":"([^"]+)"', ask("/poll?channel=news&since=0&timeout=0"))[1]
    succeeds(language, command, **options)
    after = ask(f"/poll?channel=news&since={position}&timeout=0")
    checks.that(f"{language} publishes", '"data":{"n":1}' in after, after)


def go(_, block, folder):
    program = 'package main\nimport ("net/http"; "strings")\nfunc main() {\n' + here(block) + "}\n"
    publishes("Go", ["go", "run", write(folder, "main.go", program)])


def java(_, block, folder):
    imports = "import java.net.*; import java.net.http.*; import java.net.http.HttpRequest.*;"
    imports += " import java.net.http.HttpResponse.*;"
    body = "class Main { public static void main(String[] arguments) throws Exception {\n" + here(block) + "} }\n"
    publishes("Java", ["java", write(folder, "Main.java", imports + body)])


def nginx(_, block, folder):
    """The proxy terminates TLS and forwards all transports."""
    key, certificate, port = f"{folder}/key.pem", f"{folder}/certificate.pem", free_port()
    succeeds("a certificate", [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "1",
        "-subj", "/CN=localhost",
    ])
    block = re.sub(r"ssl_certificate \S+;", f"ssl_certificate {certificate};", block)
    block = re.sub(r"ssl_certificate_key \S+;", f"ssl_certificate_key {key};", block)
    block = here(block).replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    paths = " ".join(f"{name}_temp_path {folder}/{name};" for name in ("proxy", "fastcgi", "uwsgi", "scgi"))
    path = write(folder, "nginx.conf", (
        f"daemon off; pid {folder}/pid; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; {paths}\n{block}}}\n"
    ))
    os.chmod(folder, 0o777)  # proxies that drop root privileges write there too
    process = subprocess.Popen(["nginx", "-e", "stderr", "-p", folder, "-c", path], stderr=subprocess.DEVNULL)
    base = ["curl", "-sSkN", "--http1.1"]
    try:
        ready = f"https://127.0.0.1:{port}/health/ready"
        until(lambda: "ready" in run([*base, ready]).stdout)
        checks.that("health through TLS", "ready" in succeeds("curl", [*base, ready]))
        upgrade = [header for line in (
            "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ) for header in ("-H", line)]
        ask("/publish?channel=proxied", b"before")
        for what, path, options, expected in (
            ("a WebSocket", "/ws?channel=proxied", [*upgrade, "-i"], "101 Switching Protocols"),
            ("an event stream", "/events?channel=proxied", [], "data: through nginx"),
        ):
            stream = subprocess.Popen(
                [*base, "-m", "3", *options, f"https://127.0.0.1:{port}{path}"], stdout=subprocess.PIPE,
            )
            until(lambda: subscriptions("proxied") > 0)
            ask("/publish?channel=proxied", b"through nginx")
            heard = stream.communicate()[0].decode(errors="replace")
            checks.that(f"{what} through TLS", expected in heard and "through nginx" in heard, heard)
    finally:
        process.terminate()
        process.wait(10)


def subscriptions(_=None):
    samples = re.findall(r"^fantail_subscriptions\{.*\} (\d+)", ask("/metrics"), re.MULTILINE)
    return sum(map(int, samples))


def until(holds, seconds=10):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            checks.that("the condition holds in time", False)
            return
        time.sleep(0.02)


RUNNERS = {
    "sh": shell,
    "html": browser,
    "js": javascript,
    "python": python,
    "go": go,
    "java": java,
    "nginx": nginx,
}


def main():
    ran = 0
    for document, language, block in blocks():
        with OwnServer("documents"), tempfile.TemporaryDirectory() as folder:
            checks.run(f"{document} {language}", RUNNERS[language], document, block, folder)
        ran += 1
    checks.that("blocks are found", ran > 5, ran)


with contextlib.suppress(KeyboardInterrupt):
    main()
checks.finish()
