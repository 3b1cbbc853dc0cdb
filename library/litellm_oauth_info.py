#!/usr/bin/python
# SPDX-License-Identifier: MIT

from __future__ import annotations

DOCUMENTATION = r"""
module: litellm_oauth_info
short_description: Tell who is logged in at the gateway, and for how long
description:
  - Reads the logins that the LiteLLM gateway's OAuth module keeps. Tokens are never returned.
options:
  user:
    description:
      - The user to tell about. Left out, all users are listed, which needs an administrator's key.
    type: str
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
    description: Can run in check mode and return the same.
  diff_mode:
    support: none
    description: Nothing is changed, so there is nothing to show.
  idempotent:
    support: full
    description: Changes nothing.
author:
  - The LiteLLM OAuth kit authors (@litellm-oauth)
seealso:
  - module: litellm_oauth_login
  - module: litellm_oauth_token
"""

EXAMPLES = r"""
- name: See who is logged in
  litellm_oauth_info:
    api_key_file: /etc/litellm-oauth/secrets/gateway/master_key
  register: logins

- name: See how alice's login stands
  litellm_oauth_info:
    user: alice
    gateway_url: https://gateway.example.com
    api_key: "{{ vault_gateway_key }}"
"""

RETURN = r"""
users:
  description: One entry for each user, in the order of their ids.
  returned: success
  type: list
  elements: dict
  contains:
    user_id:
      description: The user.
      type: str
      sample: alice
    authenticated:
      description: Whether a request of this user can be served without a new login.
      type: bool
      sample: true
    status:
      description:
        - One of V(active), V(due), V(expired), V(in_doubt), V(cooling_down), V(reauth_required), V(unreadable), V(logged_out).
      type: str
      sample: active
    expires_at:
      description: When the access token expires, in UTC.
      type: str
      sample: "2026-11-23T16:00:00Z"
    expires_in:
      description: Seconds until then.
      type: int
      sample: 28799
    refresh_expires_at:
      description: When the login itself ends and a new one is needed, where the provider says so.
      type: str
      sample: null
    login_ends_at:
      description: When a new login will be needed, by the provider's word or else by the login's age.
      type: str
      sample: "2026-12-20T08:00:00Z"
    warning:
      description: Said days before a login ends, with what to do.
      type: str
      sample: null
    has_refresh_token:
      description: Whether the gateway can refresh this login.
      type: bool
      sample: true
    next_attempt_at:
      description: When the provider is asked again after a failure.
      type: str
      sample: null
    generation:
      description: Counts every change of the user's tokens; never goes back.
      type: int
      sample: 3
    refresh_count:
      description: How often this login was refreshed.
      type: int
      sample: 2
    updated_at:
      description: When the gateway changed what it stores of this login.
      type: str
      sample: "2026-11-23T08:00:00Z"
    source:
      description: Where the gateway read it, V(database) for instance.
      type: str
      sample: database
    scopes:
      description: What the login may be used for, in the provider's words.
      type: list
      elements: str
      sample: ["user:inference", "user:profile"]
    account:
      description: What the provider says of the account.
      type: dict
      sample: {account: {uuid: 7d9f2c1e, email_address: alice@example.com}, organization: {name: Example}}
    last_error:
      description: Why the last refresh failed, if it did.
      type: str
      sample: null
gateway:
  description: The gateway's own health.
  returned: success
  type: dict
  sample: {status: ok, database: true}
msg:
  description: What went wrong and what to do, in a sentence.
  returned: failure
  type: str
  sample: Nothing listens at http://127.0.0.1:4000. Check that the gateway is running, and gateway_url.
error_code:
  description: The gateway's word for what went wrong; empty where the gateway did not answer.
  returned: failure
  type: str
  sample: forbidden
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.litellm_oauth_client import (
    CONNECTION_OPTIONS,
    CONNECTION_RULES,
    Gateway,
    check_user,
)
from ansible.module_utils.litellm_oauth_http import GatewayError


def main() -> None:
    module = AnsibleModule(
        argument_spec={**CONNECTION_OPTIONS, "user": {"type": "str"}},
        supports_check_mode=True,
        **CONNECTION_RULES,
    )
    user = module.params["user"]
    try:
        check_user(user)
        gateway = Gateway.from_module(module)
        health = gateway.health()
        users = list(gateway.statuses()) if user is None else [gateway.status(user)]
    except GatewayError as error:
        module.fail_json(msg=error.message, error_code=error.code)
    module.exit_json(changed=False, users=users, gateway=health)


if __name__ == "__main__":
    main()
