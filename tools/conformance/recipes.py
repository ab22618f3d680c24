"""Runs the proxies with the configurations in proxies/, which src/transport/PROXIES.md shows."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
WORK = os.environ["CONFORMANCE_WORK"]

NGINX = (
    "daemon off; pid {folder}/pid; error_log stderr;\nevents {{}}\n"
    "http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;"
    " fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n{recipe}\n}}"
)
# For each file: what surrounds it so that it runs beside others, and the command that runs it in the foreground.
# {recipe} is the file's text, {file} the surrounded file, {folder} a private folder, {port} the proxy's port.
RECIPES = {
    "nginx.conf": (NGINX, "nginx -e stderr -p {folder} -c {file}"),
    "nginx-stream.conf": (
        "load_module modules/ngx_stream_module.so;\ndaemon off; pid {folder}/pid; error_log stderr;\nevents {{}}\n{recipe}",
        "nginx -e stderr -c {file}",
    ),
    "haproxy.cfg": ("{recipe}", "haproxy -db -f {file}"),
    "haproxy-tcp.cfg": ("{recipe}", "haproxy -db -f {file}"),
    "varnish.vcl": ("{recipe}", "varnishd -F -f {file} -a 127.0.0.1:{port} -n {folder}/varnish -s malloc,32m"),
    "apache.conf": (
        "ServerRoot {folder}\nServerName localhost\nPidFile {folder}/pid\nErrorLog /dev/stderr\n{recipe}",
        "apache2 -D FOREGROUND -f {file}",
    ),
    "Caddyfile": (
        "{{\nadmin off\nauto_https off\ndefault_bind 127.0.0.1\n}}\n{recipe}",
        "caddy run --adapter caddyfile --config {file}",
    ),
    "lighttpd.conf": ("{recipe}", "lighttpd -D -f {file}"),
    "nghttpx.conf": ("{recipe}\nworkers=1\nno-ocsp=yes", "nghttpx --conf={file}"),
    "squid.conf": (
        "{recipe}\npid_filename {folder}/pid\naccess_log none\ncache_log {folder}/log\ncoredump_dir {folder}\n"
        "visible_hostname localhost\nshutdown_lifetime 0 seconds\nnetdb_filename none\n"
        "pinger_enable off",
        "squid -N -n fantail{port} -f {file}",
    ),
    "h2o.yaml": ("{recipe}", "h2o -c {file}"),
    "envoy.yaml": ("{recipe}", WORK + "/proxies/bin/envoy -c {file} --concurrency 1 --disable-hot-restart -l warn"),
    "traefik.yaml": (
        "{recipe}",
        WORK + "/proxies/bin/traefik --entrypoints.web.address=127.0.0.1:{port} --providers.file.filename={file}",
    ),
    "httpxy.mjs": ("{recipe}", "node {file}"),
    "stunnel.conf": ("foreground = yes\npid =\n{recipe}", "stunnel4 {file}"),
    "hitch.conf": ("{recipe}\nworkers = 1\n{user}", "hitch --config={file}"),
}


def replaced(text, changes):
    """The text with each key of the changes, all of which it must contain, replaced."""
    missing = [old for old in changes if old not in text]
    if missing:
        raise ValueError(f"no {missing} in {text!r}")
    # All in one pass, as what is inserted may contain another key; the longest of two at the same place.
    keys = "|".join(re.escape(old) for old in sorted(changes, key=len, reverse=True))
    return re.sub(keys, lambda found: changes[found[0]], text) if keys else text


def recipe(name):
    with open(f"{HERE}/proxies/{name}") as file:
        return file.read()


@contextlib.contextmanager
def running(name, port, text, log):
    """Runs a proxy on a port of the loopback address, with a text in place of that of its file."""
    surroundings, command = RECIPES[name]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)  # proxies that drop root privileges write there too
        os.symlink(f"{WORK}/node/node_modules", f"{folder}/node_modules")
        names = {"folder": folder, "file": f"{folder}/{name}", "port": port}
        # hitch refuses to run as root.
        names["user"] = 'user = "nobody"' if os.geteuid() == 0 else ""
        text = text.replace("0.0.0.0", "127.0.0.1")
        with open(names["file"], "w") as file:
            file.write(surroundings.format(recipe=text, **names))
        with open(log, "w") as output:
            words = command.format(**names).split()
            process = subprocess.Popen(
                words, stdout=output, stderr=output, env={**os.environ, "HOME": folder}, start_new_session=True
            )
        try:
            yield process
        finally:
            process.terminate()
            # Some wait for the server to end a stream whose client has left.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            # Its children are in its group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
