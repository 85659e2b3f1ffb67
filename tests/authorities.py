"""A time-stamping authority, made with openssl."""

import subprocess
from pathlib import Path

SETTINGS = """
[req]
distinguished_name = name
prompt = no
[name]
CN = {name}
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[stamps]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""


class Authority:
    """A root, and a key that it lets stamp."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "serial").write_text("01")
        for who in ("root", "tsa"):
            (folder / f"{who}.cnf").write_text(SETTINGS.format(folder=folder, name=f"{name} {who}"))
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        self.run("req", "-x509", *new, "-keyout", "root.key", "-out", "root.pem", "-config", "root.cnf", "-extensions",
                 "authority", "-days", "9")  # fmt: skip
        self.run("req", *new, "-keyout", "tsa.key", "-out", "tsa.csr", "-config", "tsa.cnf")
        self.run("x509", "-req", "-in", "tsa.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-out", "tsa.pem",
                 "-extfile", "tsa.cnf", "-extensions", "stamps", "-days", "9")  # fmt: skip
        self.roots = (folder / "root.pem").read_bytes()

    def run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)

    def stamp(self, request: bytes) -> bytes:
        (self.folder / "asked.tsq").write_bytes(request)
        self.run("ts", "-reply", "-queryfile", "asked.tsq", "-config", "tsa.cnf", "-out", "said.tsr")
        return (self.folder / "said.tsr").read_bytes()
