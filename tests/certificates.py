"""Certificates for tests, made with the openssl program."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Authority:
    """A certificate authority of its own, in a folder of its own."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    def issue(self, name: str, *, san: str = "DNS:localhost") -> tuple[Path, Path]:
        """A certificate and its key."""
        key, request, certificate, extension = (self.folder / f"{name}.{end}" for end in ("key", "csr", "crt", "ext"))
        extension.write_text(f"subjectAltName={san}\n")
        _openssl("req", "-newkey", "ec", *CURVE, "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        signed_by = ("-CA", self.certificate, "-CAkey", self.folder / "ca.key", "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *signed_by, "-days", "2", "-extfile", extension, "-out", certificate)
        return certificate, key


CURVE = ("-pkeyopt", "ec_paramgen_curve:prime256v1")


def an_authority(folder: Path) -> Authority:
    """A new one; the test is skipped where there is no openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on PATH")
    folder.mkdir()
    authority = Authority(folder)
    name = ("-subj", "/CN=an authority for tests", "-keyout", folder / "ca.key", "-out", authority.certificate)
    _openssl("req", "-x509", "-newkey", "ec", *CURVE, "-nodes", "-days", "2", *name)
    return authority


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)
