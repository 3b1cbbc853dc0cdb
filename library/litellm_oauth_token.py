#!/usr/bin/python
# SPDX-License-Identifier: MIT

from __future__ import annotations

DOCUMENTATION = r"""
module: litellm_oauth_token
short_description: Keep users' tokens at the gateway fresh, or log users out
description:
  - Works through the gateway, which alone changes tokens; one refresh at a time for each user, whoever asks.
  - Every user is reported. One user's failure does not keep the others from being refreshed.
options:
  state:
    description:
      - V(present) fails for a user who cannot be served without a new login, and changes nothing.
      - V(refreshed) refreshes users whose token has less than O(min_validity) seconds left.
      - V(absent) logs users out, here and at the provider.
    type: str
    choices: [present, refreshed, absent]
    default: present
  user:
    description: The user. Left out, all users who are logged in are meant, which needs an administrator's key.
    type: str
  min_validity:
    description: Seconds of validity that a token shall have at least. The gateway's C(refresh_buffer), if left out.
    type: int
  force:
    description: Refresh also tokens that are valid for long enough. Each forced refresh spends a refresh token.
    type: bool
    default: false
  fail_on_error:
    description: Fail at the end if any user failed. With V(false), the failures are in RV(users) only.
    type: bool
    default: true
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
    description: Predicts by the users' status, and asks the provider nothing.
  diff_mode:
    support: full
    description: Shows status, generation and expiry before and after, for each user that changed.
  idempotent:
    support: partial
    description: Unless O(force=true), a second run within O(min_validity) changes nothing.
author:
  - The LiteLLM OAuth kit authors (@litellm-oauth)
seealso:
  - module: litellm_oauth_login
  - module: litellm_oauth_info
"""

EXAMPLES = r"""
- name: Refresh whoever has less than an hour left
  litellm_oauth_token:
    state: refreshed
    min_validity: 3600
    api_key_file: /etc/litellm-oauth/secrets/gateway/master_key

- name: Log alice out
  litellm_oauth_token:
    state: absent
    user: alice
    api_key_file: /etc/litellm-oauth/secrets/gateway/master_key
"""

RETURN = r"""
users:
  description: One entry for each user who was looked at.
  returned: always, once the users are known
  type: list
  elements: dict
  contains:
    user_id:
      description: The user.
      type: str
      sample: alice
    result:
      description: One of V(fresh), V(refreshed), V(would_refresh), V(logged_out), V(would_log_out), V(present), V(failed).
      type: str
      sample: refreshed
    message:
      description: Why it failed and what to do, or what happened.
      type: str
      sample: Refreshed.
    expires_in:
      description: Seconds until the access token expires.
      type: int
      sample: 28799
    generation_before:
      description: The user's generation before this task.
      type: int
      sample: 1
    generation:
      description: The user's generation after this task.
      type: int
      sample: 2
counts:
  description: How many users had each result.
  returned: always, once the users are known
  type: dict
  sample: {fresh: 1, refreshed: 2}
"""

from collections import Counter
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.litellm_oauth_client import (
    CONNECTION_OPTIONS,
    CONNECTION_RULES,
    Gateway,
    GatewayError,
    difference,
)

# What the gateway counts as due where nobody says otherwise; needed for check mode's prediction only.
DEFAULT_BUFFER = 300


def present(status: dict[str, Any]) -> dict[str, Any]:
    if status["authenticated"]:
        return {"result": "present", "message": "Logged in."}
    return {
        "result": "failed",
        "message": f"Not logged in ({status['status']}). Log in with litellm_oauth_login.",
    }


def refreshed(gateway: Gateway, status: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    user = status["user_id"]
    answer = gateway.refresh(user, min_validity=options["min_validity"], force=options["force"])
    moved = answer["generation"] > status["generation"]
    if answer["result"] == "refreshed" and not moved:
        raise GatewayError(
            f"The gateway says it refreshed {user}, but the generation did not rise. Look at its log."
        )
    # Somebody else may have refreshed between the look and the call: that is a change all the same.
    return {
        "result": "refreshed" if moved else "fresh",
        "message": "Refreshed." if moved else "Valid for long enough.",
        "expires_in": answer["expires_in"],
        "generation": answer["generation"],
    }


def would_refresh(status: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    least = DEFAULT_BUFFER if options["min_validity"] is None else options["min_validity"]
    if options["force"] or (status["expires_in"] or 0) <= least:
        return {"result": "would_refresh", "message": "Would be refreshed."}
    return {"result": "fresh", "message": "Valid for long enough."}


def absent(gateway: Gateway, status: dict[str, Any]) -> dict[str, Any]:
    answer = gateway.logout(status["user_id"])
    if not answer["was_logged_in"]:
        return {"result": "logged_out", "message": "Was not logged in."}
    at_provider = {True: ", and the provider revoked the tokens", False: "; the provider could not be told"}
    return {
        "result": "logged_out",
        "message": "Logged out" + at_provider.get(answer["revoked"], "") + ".",
        "expires_in": None,
        "generation": answer["generation"],
    }


def treat(
    gateway: Gateway, status: dict[str, Any], options: dict[str, Any], *, check_mode: bool
) -> dict[str, Any]:
    """One user's report. A fault of this user's is part of it."""
    report = {
        "user_id": status["user_id"],
        "expires_in": status["expires_in"],
        "generation_before": status["generation"],
        "generation": status["generation"],
    }
    logged_out = status["status"] == "logged_out"
    try:
        if options["state"] == "present":
            return {**report, **present(status)}
        if options["state"] == "absent":
            if check_mode and not logged_out:
                return {**report, "result": "would_log_out", "message": "Would be logged out."}
            if logged_out:
                return {**report, "result": "logged_out", "message": "Was not logged in."}
            return {**report, **absent(gateway, status)}
        if logged_out:
            return {**report, **present(status)}
        if check_mode:
            return {**report, **would_refresh(status, options)}
        return {**report, **refreshed(gateway, status, options)}
    except GatewayError as error:
        if error.status == 0 or error.code == "invalid_api_key":
            # The gateway itself is out of reach, or knows nobody of us: so it is for everybody else.
            raise
        return {**report, "result": "failed", "message": error.message}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "state": {"type": "str", "choices": ["present", "refreshed", "absent"], "default": "present"},
            "user": {"type": "str"},
            "min_validity": {"type": "int"},
            "force": {"type": "bool", "default": False},
            "fail_on_error": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
        **CONNECTION_RULES,
    )
    options = module.params
    if options["min_validity"] is not None and options["min_validity"] < 0:
        module.fail_json(msg=f"min_validity is {options['min_validity']}: give seconds, 0 or more.")
    reports: list[dict[str, Any]] = []
    diffs: list[dict[str, Any]] = []
    try:
        gateway = Gateway.from_options(options)
        if options["user"]:
            statuses = [gateway.status(options["user"])]
        else:
            statuses = [status for status in gateway.statuses() if status["status"] != "logged_out"]
        for status in statuses:
            report = treat(gateway, status, options, check_mode=module.check_mode)
            reports.append(report)
            if report["generation"] != report["generation_before"]:
                diffs.append(difference(status, gateway.status(status["user_id"])))
    except GatewayError as error:
        module.fail_json(
            msg=error.message, code=error.code, users=reports, changed=bool(diffs), counts=counts(reports)
        )
    changed = bool(diffs) or any(report["result"] in ("would_refresh", "would_log_out") for report in reports)
    result = {"changed": changed, "users": reports, "counts": counts(reports), "diff": diffs}
    failed = [report for report in reports if report["result"] == "failed"]
    if failed and options["fail_on_error"]:
        sentences = "; ".join(f"{report['user_id']}: {report['message']}" for report in failed)
        module.fail_json(msg=f"{len(failed)} of {len(reports)} users failed. {sentences}", **result)
    module.exit_json(**result)


def counts(reports: list[dict[str, Any]]) -> dict[str, int]:
    return dict(Counter(report["result"] for report in reports))


if __name__ == "__main__":
    main()
