"""Where things are on the site of ``openid_site``, as Django wants to be told."""

from __future__ import annotations

from django.contrib.auth.views import LoginView
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt
from oauth2_provider.decorators import protected_resource

from .openid_site import messages

# RFC 6750 §3.1: 401 for a token that is not good.
_for_bearers = protected_resource(scopes=["models"], advertise_metadata=True)

urlpatterns = [
    path("login/", LoginView.as_view()),
    path("o/", include("oauth2_provider.urls")),
    path("v1/messages", csrf_exempt(_for_bearers(messages))),
]
