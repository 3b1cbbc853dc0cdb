"""A company's identity provider and the API behind it, made of django-oauth-toolkit and nothing of ours.

The provider is as strict as it can be told to be (RFC 9700): PKCE with S256, form bodies, rotation, ``iss``
in the redirect. Which tokens are good on the API it decides alone. Run as a program by ``openid_provider``.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import django
import uvicorn
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.http import HttpRequest, JsonResponse

USERS = ("alice", "bob")
PASSWORD = "password-of-nobody"
CLIENT_ID = "litellm-gateway"
# With what a form encodes in it, so that it matters how HTTP Basic carries it.
CLIENT_SECRET = "obviously fake: 100%+/"
REDIRECT_URI = "https://gateway.example.com/oauth/callback"
SCOPES = {"openid": "Who you are", "offline_access": "While you are away", "models": "Ask models"}

_LOGIN_PAGE = '<form method="post">{% csrf_token %}{{ form }}<input type="submit"></form>'


def configure(folder: Path) -> None:
    """Django's settings. Its database is a file in ``folder``."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pages = ("django.template.loaders.locmem.Loader", {"registration/login.html": _LOGIN_PAGE})
    settings.configure(
        SECRET_KEY="obviously-fake-and-of-no-use-outside-of-tests",
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF="support.openid_urls",
        LOGIN_URL="/login/",
        STATIC_URL="/static/",
        USE_TZ=True,
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "oauth2_provider",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "OPTIONS": {"loaders": [pages, "django.template.loaders.app_directories.Loader"]},
            }
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "db.sqlite3"}},
        # A slow hash would only make the tests slow.
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        OAUTH2_PROVIDER={
            "SCOPES": SCOPES,
            "OIDC_ENABLED": True,
            "OIDC_RSA_PRIVATE_KEY": pem.decode(),
            "COMPLIANT_BCP_RFC9700_IMPLICIT_GRANT": True,
            "COMPLIANT_BCP_RFC9700_PASSWORD_GRANT": True,
            "COMPLIANT_BCP_RFC9700_PKCE_METHOD": True,
            "COMPLIANT_BCP_RFC9700_ACCESS_TOKEN_TRANSPORT": True,
            "COMPLIANT_BCP_RFC9700_AUTHZ_RESPONSE_ISS": True,
            "COMPLIANT_BCP_RFC9700_TOKEN_STORAGE": True,
        },
    )
    django.setup()


def fill() -> None:
    """Tables, people and our client."""
    from django.contrib.auth import get_user_model
    from oauth2_provider.models import get_application_model

    call_command("migrate", verbosity=0)
    for user in USERS:
        get_user_model().objects.create_user(user, password=PASSWORD)
    application = get_application_model()
    application.objects.create(
        name="The company's gateway",
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        client_type=application.CLIENT_CONFIDENTIAL,
        authorization_grant_type=application.GRANT_AUTHORIZATION_CODE,
        algorithm=application.RS256_ALGORITHM,
        redirect_uris=REDIRECT_URI,
    )


def messages(request: HttpRequest) -> Any:
    """The API: an answer of Anthropic's shape that knows whose token it was, with the headers that came."""
    return JsonResponse(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "company-model",
            "content": [{"type": "text", "text": f"Hello, {request.resource_owner}."}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 1, "output_tokens": 1},
            "headers": {name.lower(): value for name, value in request.headers.items()},
        }
    )


def main(listener: int, folder: Path) -> None:
    """Serve on a socket that listens already, so that who asks too early waits."""
    configure(folder)
    fill()
    server = uvicorn.Server(uvicorn.Config(get_asgi_application(), log_level="warning", lifespan="off"))
    server.run(sockets=[socket.socket(fileno=listener)])


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
