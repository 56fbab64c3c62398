"""nginx for tests, with our template or without."""

import shutil
import ssl
import subprocess
from pathlib import Path
from string import Template

import pytest
import yaml
from study_servers import ROOT, wait_for

DEPLOY = ROOT / "study_app" / "deploy"


def compose() -> dict:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


class Nginx:
    """A real nginx with these lines inside its `http` block."""

    def __init__(self, folder: Path, port: int, lines: str) -> None:
        found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if found is None:
            pytest.skip("needs nginx: apt-get install nginx-light")
        folder.mkdir()
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {folder / kind};\n" for kind in kinds)
        (folder / "nginx.conf").write_text(
            f"daemon off;\npid {folder / 'pid'};\nerror_log stderr;\nevents {{}}\nhttp {{\n{paths}{lines}\n}}\n"
        )
        self.folder, self.log = folder, folder / "log"
        command = [found, "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(port, self.process, self.log)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def from_template(values: dict[str, str]) -> str:
    """nginx.conf.template as its image fills it in."""
    return Template((DEPLOY / "nginx.conf.template").read_text()).safe_substitute(values)


def certificate(folder: Path) -> ssl.SSLContext:
    """Make certificate.pem and key.pem of "localhost", and what trusts them."""
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", folder / "key.pem", "-out", folder / "certificate.pem"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*command, "-days", "2", *subject, *files], check=True, capture_output=True)
    return ssl.create_default_context(cafile=folder / "certificate.pem")
