"""The ways to a server: directly, and through each proxy by its recipe in this folder, with only the ports and the logs changed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients" / "py"))
from harness import Child, equal, free_port  # noqa: E402

START_SECONDS = 20


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def recipe(name, changes):
    """The recipe's text with these pieces replaced, each of which must be there exactly once."""
    text = (HERE / name).read_text()
    for there, here in changes:
        equal(text.count(there), 1, f"{there!r} in tools/proxies/{name}")
        text = text.replace(there, here)
    return text


class Proxy(Child):
    """One proxy in front of the server on `upstream`. `extra` are more changes of its recipe."""

    name = package = program = ""

    @classmethod
    def find(cls):
        return shutil.which(cls.program, path=os.environ.get("PATH", "") + ":/usr/sbin")

    @classmethod
    def begin(cls, upstream, extra=()):
        program = cls.find()
        if program is None:
            raise RuntimeError(f"{cls.program} is missing: apt-get install {cls.package}")
        proxy = cls()
        proxy.port = free_port()
        proxy.spawn(proxy.prepare(program, upstream, list(extra)))
        deadline = time.monotonic() + START_SECONDS
        while not accepts(proxy.port):
            if proxy.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{cls.name} did not start:\n{proxy.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        return proxy

    def logged(self):
        return self.log.read_text(errors="replace")

    def reload(self):
        """As a change of its configuration makes it: new processes take over, old ones keep their connections."""
        raise NotImplementedError


class Nginx(Proxy):
    name, package, program = "nginx", "nginx-light", "nginx"

    def prepare(self, program, upstream, extra):
        text = recipe(
            "nginx.conf",
            [
                ("server 127.0.0.1:8080;", f"server 127.0.0.1:{upstream};"),
                ("listen 80;", f"listen 127.0.0.1:{self.port};"),
                ("/var/log/nginx/commitcast.log", str(self.dir / "access.log")),
                *extra,
            ],
        )
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {self.dir}/{kind};\n" for kind in kinds)
        (self.dir / "nginx.conf").write_text(
            f"daemon off; worker_processes 1; pid {self.dir}/pid; error_log stderr;\n"
            f"{'user root;' if os.geteuid() == 0 else ''}\n"
            f"events {{ worker_connections 4096; }}\nhttp {{\n{temporary}{text}}}\n"
        )
        return [program, "-p", str(self.dir), "-c", str(self.dir / "nginx.conf"), "-e", "stderr"]

    def logged(self):
        access = self.dir / "access.log"
        return access.read_text(errors="replace") if access.exists() else ""

    def reload(self):
        self.process.send_signal(signal.SIGHUP)


class Haproxy(Proxy):
    name, package, program = "haproxy", "haproxy", "haproxy"

    def prepare(self, program, upstream, extra):
        changes = [
            ("server one 127.0.0.1:8080", f"server one 127.0.0.1:{upstream}"),
            ("bind :80", f"bind 127.0.0.1:{self.port}"),
            ("log /dev/log local0", "log stdout format raw local0"),
            *extra,
        ]
        (self.dir / "haproxy.cfg").write_text(recipe("haproxy.cfg", changes))
        return [program, "-W", "-f", str(self.dir / "haproxy.cfg")]

    def reload(self):
        self.process.send_signal(signal.SIGUSR2)


class Caddy(Proxy):
    name, package, program = "caddy", "caddy", "caddy"

    def prepare(self, program, upstream, extra):
        changes = [
            ("reverse_proxy 127.0.0.1:8080", f"reverse_proxy 127.0.0.1:{upstream}"),
            ("http://app.example.com:80 {", f"http://app.example.com:{self.port} {{\n\tbind 127.0.0.1"),
            *extra,
        ]
        (self.dir / "Caddyfile").write_text("{\n\tadmin off\n}\n" + recipe("Caddyfile", changes))
        return [program, "run", "--adapter", "caddyfile", "--config", str(self.dir / "Caddyfile")]


PROXIES = {proxy.name: proxy for proxy in (Nginx, Haproxy, Caddy)}
