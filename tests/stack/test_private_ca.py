"""A private CA (litellm_oauth_ca_file) is trusted by our clients and LiteLLM's, and only where named."""

from __future__ import annotations

import json

from support.stack import Stack

# An https server on loopback whose certificate a CA of its own has signed, and who gets an answer from it.
SCRIPT = """
import asyncio, datetime, http.server, ipaddress, json, os, ssl, sys, threading
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

now = datetime.datetime.now(datetime.UTC)

def certificate(name, key, issuer, issuer_key, *extensions):
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(hours=1))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

def named(name):
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])

ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
ca, own = named("a private CA"), named("api")
ca_identifier = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
with open("/tmp/ca.pem", "wb") as file:
    file.write(certificate(ca, ca_key, ca, ca_key, x509.BasicConstraints(True, None), ca_identifier, usage))
with open("/tmp/api.pem", "wb") as file:
    file.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption()))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    file.write(certificate(own, key, ca, ca_key, x509.BasicConstraints(False, None), names, authority))
if sys.argv[1:] == ["trusted"]:
    os.environ["SSL_CERT_FILE"] = "/tmp/ca.pem"

class Api(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps({"id": "m", "type": "message", "role": "assistant", "model": "m", "content":
            [{"type": "text", "text": "hello"}], "stop_reason": "end_turn",
            "usage": {"input_tokens": 1, "output_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tmp/api.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"https://127.0.0.1:{server.server_port}"

import litellm
from litellm_oauth.http_client import http_client

async def ours():
    async with http_client() as client:
        return (await client.post(base, json={})).status_code

async def litellms():
    answer = await litellm.acompletion("anthropic/m", [{"role": "user", "content": "x"}], api_base=base,
        api_key="obviously-fake", num_retries=0, max_retries=0)
    return answer.choices[0].message.content

async def main():
    for ask in (ours, litellms):
        try:
            print("RESULT", json.dumps(await ask()))
        except Exception as error:
            print("RESULT", json.dumps("CERTIFICATE_VERIFY_FAILED" in str(error)))

asyncio.run(main())
"""


def results(stack: Stack, *arguments: str) -> list[object]:
    result = stack.exec("litellm", "python", "-c", SCRIPT, *arguments)
    assert result.rc == 0, result.stderr
    lines = result.stdout.splitlines()
    return [json.loads(line.removeprefix("RESULT ")) for line in lines if line.startswith("RESULT ")]


def test_a_private_ca_is_trusted_where_it_is_named(stack: Stack) -> None:
    assert results(stack, "trusted") == [200, "hello"]


def test_and_nowhere_else(stack: Stack) -> None:
    assert results(stack) == [True, True]
