#!/usr/bin/python
# SPDX-License-Identifier: MIT

from __future__ import annotations

DOCUMENTATION = r"""
module: litellm_oauth_login
short_description: Log a user in at the gateway with OAuth 2.0 and PKCE
description:
  - Without O(code) it starts a login and returns the URL that the user opens in a browser.
  - With O(code) it completes the login, reads it back, and fails unless the user's generation rose.
  - The PKCE verifier stays with the gateway, so that the login may be completed from another control node. Tokens are never returned.
options:
  user:
    description: The user who logs in. V(default) is the login of the master key.
    type: str
    default: default
  code:
    description:
      - What the provider's page showed, as the bare code, as C(code#state), or as the whole address of that page.
      - A bare code counts for the user's newest pending login only.
      - It can be used once, within ten minutes.
    type: str
  force:
    description: Start a new login although the user is logged in.
    type: bool
    default: false
  gateway_url:
    description: URL of the gateway, as the executing host reaches it.
    type: str
    default: http://127.0.0.1:4000
  api_key:
    description: Key of the gateway. Exactly one of O(api_key) and O(api_key_file) is needed.
    type: str
  api_key_file:
    description: File on the executing host that holds the key.
    type: path
  validate_certs:
    description: Whether the gateway's certificate is checked.
    type: bool
    default: true
  ca_path:
    description: File with the CA certificates that the gateway's certificate is checked against.
    type: path
  timeout:
    description: Seconds to wait for one answer.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
    description: Says whether it would start or complete a login, and sends nothing but a look at the user's status.
  diff_mode:
    support: full
    description: Shows status, generation and expiry before and after.
  idempotent:
    support: partial
    description:
      - Starting is idempotent for a user who is logged in, unless O(force=true).
      - A code can be used once, by the protocol's design.
author:
  - The LiteLLM OAuth kit authors (@litellm-oauth)
seealso:
  - module: litellm_oauth_token
  - module: litellm_oauth_info
"""

EXAMPLES = r"""
- name: Start a login
  litellm_oauth_login:
    user: alice
    api_key_file: /etc/litellm-oauth/secrets/gateway/master_key
  register: login

- name: Show the URL to open
  ansible.builtin.debug:
    var: login.authorization_url

- name: Complete the login
  litellm_oauth_login:
    user: alice
    code: "{{ code }}"
    api_key_file: /etc/litellm-oauth/secrets/gateway/master_key
  no_log: true
"""

RETURN = r"""
authorization_url:
  description: The URL that the user opens in a browser.
  returned: when a login was started
  type: str
  sample: https://provider.example.com/oauth/authorize?response_type=code
expires_in:
  description: Seconds within which the login must be completed.
  returned: when a login was started
  type: int
  sample: 600
already_logged_in:
  description: Whether no login was started because the user has a working one.
  returned: without O(code)
  type: bool
  sample: false
before:
  description: The login before this task.
  returned: success
  type: dict
  sample: {user_id: alice, status: logged_out, generation: 0, expires_at: null, expires_in: null}
after:
  description: The login after this task, read back from the gateway.
  returned: success
  type: dict
  sample: {user_id: alice, status: active, generation: 1, expires_at: "2026-11-23T16:00:00Z", expires_in: 28799}
msg:
  description: What happened, in a sentence.
  returned: success
  type: str
  sample: alice is logged in.
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.litellm_oauth_client import (
    CONNECTION_OPTIONS,
    CONNECTION_RULES,
    Gateway,
    GatewayError,
    brief,
    check_code,
    difference,
)


def start(gateway: Gateway, user: str, *, force: bool, check_mode: bool) -> dict[str, Any]:
    before = gateway.status(user)
    result = {"changed": False, "already_logged_in": False, "before": brief(before), "after": brief(before)}
    known = {
        **result,
        "already_logged_in": True,
        "msg": f"{user} is logged in already. To log in anew, set force: true.",
    }
    if before["authenticated"] and not force:
        return known
    if check_mode:
        return {**result, "changed": True, "msg": f"A login for {user} would be started."}
    try:
        started = gateway.start(user, force=force)
    except GatewayError as error:
        # Somebody was quicker since the status was read.
        if error.code == "already_logged_in":
            return known
        raise
    return {
        **result,
        "changed": True,
        "authorization_url": started["authorization_url"],
        "expires_in": started["expires_in"],
        "msg": f"A login for {user} waits for its code.",
    }


def complete(gateway: Gateway, user: str, code: str, *, check_mode: bool) -> dict[str, Any]:
    check_code(code)
    before = gateway.status(user)
    if check_mode:
        message = (
            f"The login of {user} would be completed; only the provider can say whether the code is good."
        )
        return {"changed": True, "before": brief(before), "after": brief(before), "msg": message}
    gateway.exchange(user, code)
    after = gateway.status(user)
    if after["generation"] <= before["generation"] or not after["authenticated"]:
        raise GatewayError(
            f"The gateway took the code, but the login of {user} did not change (generation {after['generation']}, "
            f"{after['status']}). Somebody may have logged this user out meanwhile. Look at its audit table."
        )
    return {
        "changed": True,
        "before": brief(before),
        "after": brief(after),
        "diff": difference(before, after),
        "msg": f"{user} is logged in.",
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "user": {"type": "str", "default": "default"},
            "code": {"type": "str", "no_log": True},
            "force": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
        **CONNECTION_RULES,
    )
    options = module.params
    try:
        gateway = Gateway.from_options(options)
        if options["code"] is None:
            result = start(gateway, options["user"], force=options["force"], check_mode=module.check_mode)
        else:
            result = complete(gateway, options["user"], options["code"], check_mode=module.check_mode)
    except GatewayError as error:
        module.fail_json(msg=error.message, code=error.code)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
