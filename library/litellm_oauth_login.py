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
  - Where the gateway's answer is lost, what it has stored decides whether the login was completed.
options:
  user:
    description: The user who logs in. V(default) is the login of the master key.
    type: str
    default: default
  code:
    description:
      - What the provider's page showed, as the bare code, as C(code#state), or as the whole address of that page.
      - A bare code counts for the user's newest pending login only.
      - It can be used once, within ten minutes. Its form is checked before anything is sent.
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
state:
  description: The login's state, which comes back with its code.
  returned: when a login was started
  type: str
  sample: 3f9bZkq0tYd2
expires_in:
  description: Seconds within which the login must be completed.
  returned: when a login was started
  type: int
  sample: 600
whole_address:
  description: Whether only the whole address that consent leads to completes the login (RFC 9207).
  returned: when a login was started
  type: bool
  sample: false
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
  description: What happened and what to do, in a sentence.
  returned: always
  type: str
  sample: alice is logged in.
error_code:
  description: The gateway's word for what went wrong, such as V(no_pending_login); empty where the gateway did not answer.
  returned: failure
  type: str
  sample: code_rejected
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.litellm_oauth_client import (
    CONNECTION_OPTIONS,
    CONNECTION_RULES,
    Gateway,
    brief,
    check_user,
    difference,
    foretold,
)
from ansible.module_utils.litellm_oauth_code import parse_code
from ansible.module_utils.litellm_oauth_http import GatewayError

# A text that is shorter is nobody's code, and blanking it out would garble every sentence.
SHORTEST_SECRET = 8


def start(gateway: Gateway, user: str, *, force: bool, check_mode: bool) -> dict[str, Any]:
    before = gateway.status(user)
    result = {"changed": False, "already_logged_in": False, "before": brief(before), "after": brief(before)}
    known = {
        **result,
        "already_logged_in": True,
        "msg": f"{user} is logged in already. To log in again, set force: true.",
    }
    # An access token may outlast its login, which then has to be made again.
    if before["authenticated"] and before["status"] != "reauth_required" and not force:
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
        **{name: started.get(name) for name in ("authorization_url", "state", "expires_in", "whole_address")},
        "changed": True,
        "msg": f"A login for {user} waits for its code.",
    }


def complete(gateway: Gateway, user: str, code: str, *, check_mode: bool) -> dict[str, Any]:
    before = gateway.status(user)
    if check_mode:
        after = foretold(before, "active")
        message = (
            f"The login of {user} would be completed; only the provider can say whether the code is good."
        )
    else:
        _, after = gateway.change(lambda: gateway.exchange(user, code), before)
        if after["generation"] <= before["generation"] or not after["authenticated"]:
            raise GatewayError(
                f"The gateway took the code, but {user} has no new login (generation {after['generation']}, "
                f"{after['status']}). Somebody may have logged this user out meanwhile: its audit table says who."
            )
        message = f"{user} is logged in."
    return {
        "changed": True,
        "before": brief(before),
        "after": brief(before if check_mode else after),
        "diff": difference(before, after),
        "msg": message,
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
    user, code = module.params["user"], module.params["code"]
    try:
        check_user(user)
        if code is not None:
            keep_out_of_output(module, code)
            keep_out_of_output(module, parse_code(code).code)
        gateway = Gateway.from_module(module)
        if code is None:
            result = start(gateway, user, force=module.params["force"], check_mode=module.check_mode)
        else:
            result = complete(gateway, user, code, check_mode=module.check_mode)
    except GatewayError as error:
        module.fail_json(msg=error.message, error_code=error.code)
    module.exit_json(**result)


def keep_out_of_output(module: AnsibleModule, text: str) -> None:
    if len(text) < SHORTEST_SECRET:
        module.no_log_values.discard(text)
    else:
        module.no_log_values.add(text)


if __name__ == "__main__":
    main()
