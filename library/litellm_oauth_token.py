#!/usr/bin/python
# SPDX-License-Identifier: MIT

from __future__ import annotations

DOCUMENTATION = r"""
module: litellm_oauth_token
short_description: Keep users' tokens at the gateway fresh, or log users out
description:
  - Works through the gateway, which alone changes tokens; one refresh at a time for each user, whoever asks.
  - Every user is reported. One user's failure does not keep the others from being refreshed.
  - A change is read back before it is reported; a generation that did not move is no change.
  - All users are refreshed by a job of the gateway, which this waits for. It gives up where the provider keeps failing;
    who was not tried then is reported so.
  - Where the gateway cannot be reached any more while users are logged out, the rest is reported as not tried.
options:
  state:
    description:
      - V(present) fails for a user who cannot be served without a new login, or whose token has not O(min_validity) seconds left.
        It changes nothing.
      - V(refreshed) refreshes users whose token has less than O(min_validity) seconds left. It fails for a user whose
        login the provider has ended, even while the last token still serves.
      - V(absent) logs users out, here and at the provider.
    type: str
    choices: [present, refreshed, absent]
    default: present
  user:
    description:
      - The user. Left out, all users who are logged in are meant, which needs an administrator's key.
      - With O(state=absent) one of O(user) and O(all_users=true) is needed.
    type: str
  all_users:
    description: Says that all users are meant on purpose.
    type: bool
    default: false
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
    status:
      description: How the login stands after this task, as M(litellm_oauth_info) names it.
      type: str
      sample: active
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
job:
  description:
    - The refresh of all users, as the gateway tells of it.
    - Its status is V(finished); V(stopped), where it gave up; or V(interrupted), where its process ended.
  returned: when all users were refreshed and somebody needed it
  type: dict
  sample: {job_id: 6f1e0c3e-5d1c-4f0b-9d63-1f6a3f2d8c11, status: finished, message: null}
msg:
  description: Who failed, why, and what to do.
  returned: failure
  type: str
  sample: "1 of 2 users failed. bob: bob is not logged in. Log in with the playbook oauth_login.yml."
error_code:
  description: The gateway's word for what kept it from answering at all; empty where it could not be reached.
  returned: when the gateway answered nobody
  type: str
  sample: invalid_api_key
"""

import json
import re
from collections import Counter
from shlex import quote
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.litellm_oauth_client import (
    CONNECTION_OPTIONS,
    CONNECTION_RULES,
    Gateway,
    check_user,
    difference,
    foretold,
)
from ansible.module_utils.litellm_oauth_http import UNREACHABLE, GatewayError, one_line
from ansible.module_utils.litellm_oauth_jobs import RefreshOfAll, refresh_all

# What the gateway counts as due where nobody says otherwise; for check mode, where a status does not tell.
DEFAULT_BUFFER = 300
MAX_MIN_VALIDITY = 366 * 86400
# Faults of the gateway, of its database or of the key, not of one user.
EVERYBODYS_FAULTS = (UNREACHABLE, "invalid_api_key", "storage_unavailable")
NAMED_IN_MESSAGE = 10
NOT_TRIED, NOT_TRIED_TEXT = "not_tried", "Not tried:"


class Run:
    """One pass over the users: what is wanted, and what came of it so far."""

    def __init__(self, gateway: Gateway, options: dict[str, Any], *, check_mode: bool) -> None:
        self._gateway = gateway
        self._state = options["state"]
        self._min_validity: int | None = options["min_validity"]
        self._force = options["force"]
        self._check_mode = check_mode
        self._stopped_by: GatewayError | None = None
        self._of_all: RefreshOfAll | None = None
        self._not_tried = 0
        self.reports: list[dict[str, Any]] = []
        self.diffs: list[dict[str, Any]] = []

    def treat(self, before: dict[str, Any]) -> None:
        """Bring one user to what is wanted, and report it. A user's fault is part of the report."""
        report = {
            "user_id": before["user_id"],
            "status": before["status"],
            "expires_in": before["expires_in"],
            "generation_before": before["generation"],
            "generation": before["generation"],
        }
        try:
            if self._stopped_by is not None:
                raise not_tried(self._stopped_by.message)
            result, message, after = self._act(before)
        except GatewayError as error:
            if error.code == NOT_TRIED:
                self._not_tried += 1
            elif error.code in EVERYBODYS_FAULTS and self._of_all is None:
                self._stopped_by = error
            self.reports.append({**report, "result": "failed", "message": error.message})
            return
        if after["generation"] != before["generation"]:
            self.diffs.append(difference(before, after))
        if not self._check_mode:
            report.update((name, after[name]) for name in ("status", "expires_in", "generation"))
        self.reports.append({**report, "result": result, "message": message})

    def _act(self, before: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        """Result, message, and the status afterwards. Raises GatewayError."""
        if self._state == "absent":
            return self._log_out(before)
        if before["status"] == "logged_out":
            raise GatewayError(f"{before['user_id']} is not logged in. {how_to_log_in(before['user_id'])}")
        return self._look(before) if self._state == "present" else self._refresh(before)

    def _look(self, before: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        user, left = before["user_id"], before["expires_in"] or 0
        if not before["authenticated"]:
            raise GatewayError(f"{user} has no usable login ({reason(before)}). {how_to_log_in(user)}")
        if self._min_validity is not None and left <= self._min_validity:
            raise GatewayError(
                f"The token of {user} is valid for {left} s more, which is not longer than "
                f"{self._min_validity} s. Refresh it with state: refreshed."
            )
        return "present", "Logged in.", before

    def _refresh(self, before: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        user = before["user_id"]
        if before["status"] in ("reauth_required", "unreadable"):
            raise GatewayError(
                f"The login of {user} cannot be refreshed any more ({reason(before)}). {how_to_log_in(user)}"
            )
        if self._of_all is None and self._is_due(before) is False:
            return "fresh", "Valid for long enough.", before
        if self._check_mode:
            self._foretell_refusal(before)
            return "would_refresh", "Would be refreshed.", foretold(before, "active")
        answer, after = self._refreshed(before) if self._of_all is None else self._found(before, self._of_all)
        if after["status"] == "logged_out":
            raise GatewayError(f"{user} was logged out meanwhile. {how_to_log_in(user)}")
        # Somebody else may have refreshed between the look and the call: that is a change all the same.
        if after["generation"] > before["generation"]:
            return "refreshed", "Refreshed.", after
        if answer.get("result") != "fresh":
            raise GatewayError(
                f"The gateway says that it refreshed {user}, but the stored login did not change. Look at its log."
            )
        return "fresh", "Valid for long enough.", after

    def _refreshed(self, before: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Refresh one user: the gateway's answer, and the status afterwards. Raises GatewayError."""
        user = before["user_id"]
        answer, after = self._gateway.change(
            lambda: self._gateway.refresh(user, min_validity=self._min_validity, force=self._force), before
        )
        return answer, after

    def _found(self, before: dict[str, Any], of_all: RefreshOfAll) -> tuple[dict[str, Any], dict[str, Any]]:
        """The same of a user whom the refresh of all users has looked at. Raises GatewayError."""
        user = before["user_id"]
        after = of_all.after.get(user, before)
        result = of_all.results.get(user)
        if result is None:
            # It ended before this user's turn, or before the result could be written.
            if after["generation"] == before["generation"] and self._is_due(before) is not False:
                raise not_tried(of_all.cut_short or "the gateway did not come to this user.")
            return {"result": "fresh"}, after
        if result["result"] in ("failed", "skipped"):
            raise GatewayError(one_line(str(result["message"])), str(result["code"] or ""))
        return result, after

    def _foretell_refusal(self, before: dict[str, Any]) -> None:
        """Raise GatewayError where the gateway would not ask the provider."""
        user = before["user_id"]
        if before["has_refresh_token"] is False:
            raise GatewayError(
                f"The login of {user} came without a refresh token, so it cannot be refreshed. "
                f"{how_to_log_in(user)}"
            )
        if before["status"] == "cooling_down" and not self._force:
            raise GatewayError(
                f"The provider is not asked again for {user} before {before['next_attempt_at']} "
                f"({reason(before)})."
            )

    def _is_due(self, before: dict[str, Any]) -> bool | None:
        """Whether a refresh is wanted; None where only the gateway can tell (never so in check mode)."""
        left = before["expires_in"] or 0
        if self._force:
            return True
        if self._min_validity is not None:
            return bool(left <= self._min_validity)
        if before["status"] in ("active", "due", "expired"):
            return bool(before["status"] != "active")
        return bool(left <= DEFAULT_BUFFER) if self._check_mode else None

    def _log_out(self, before: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        user = before["user_id"]
        if before["status"] == "logged_out":
            return "logged_out", "Was not logged in.", before
        if self._check_mode:
            return "would_log_out", "Would be logged out.", foretold(before, "logged_out")
        answer, after = self._gateway.change(lambda: self._gateway.logout(user), before)
        if after["status"] != "logged_out":
            raise GatewayError(
                f"{user} is still logged in, or is so again. Look at the gateway's audit table."
            )
        said = {
            True: "Logged out, and the provider revoked the tokens.",
            False: "Logged out here, but the provider did not confirm that it revoked the tokens.",
        }
        return "logged_out", said.get(answer.get("revoked"), "Logged out."), after

    def refresh_all(self, statuses: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Have all of these users refreshed at once, if one of them needs it: the job. Raises GatewayError."""
        if not any(self._wants_refresh(status) for status in statuses):
            return None
        self._of_all = refresh_all(self._gateway, min_validity=self._min_validity, force=self._force)
        job = self._of_all.job
        return {name: job.get(name) for name in ("job_id", "status", "message")}

    def _wants_refresh(self, before: dict[str, Any]) -> bool:
        return before["status"] not in ("reauth_required", "unreadable") and self._is_due(before) is not False

    def failure(self) -> str | None:
        """Who failed and why, or None."""
        failed = [report for report in self.reports if report["result"] == "failed"]
        if not failed:
            return None
        if len(self.reports) == 1:
            return str(failed[0]["message"])
        told = f"{len(failed)} of {len(self.reports)} users failed"
        cut_short = self._of_all.cut_short if self._of_all is not None else None
        if self._not_tried and cut_short:
            # What they all have in common is said once.
            failed = [report for report in failed if not report["message"].startswith(NOT_TRIED_TEXT)]
            told = f"{cut_short} {told}, {self._not_tried} of them because they were not tried"
        sentences = [f"{report['user_id']}: {report['message']}" for report in failed[:NAMED_IN_MESSAGE]]
        if len(failed) > NAMED_IN_MESSAGE:
            sentences.append(f"And {len(failed) - NAMED_IN_MESSAGE} more: see users.")
        return " ".join([f"{told}.", *sentences])


def not_tried(why: str) -> GatewayError:
    return GatewayError(f"{NOT_TRIED_TEXT} {why}", NOT_TRIED)


def reason(status: dict[str, Any]) -> str:
    """Why a login is as it is, as far as the gateway tells."""
    if status["status"] == "unreadable":
        return "what is stored does not decrypt with the gateway's keys"
    return str(one_line(str(status["last_error"] or status["status"]))).rstrip(".")


def how_to_log_in(user: str) -> str:
    # Ansible would split name=value at a space and strip quotes; JSON is taken as it is.
    plain = re.fullmatch(r"[A-Za-z0-9_.@+-]+", user)
    extra = f"user={user}" if plain else quote(json.dumps({"user": user}, ensure_ascii=False))
    return f"Log in with `ansible-playbook oauth_login.yml -e {extra}`."


def check_options(options: dict[str, Any]) -> None:
    """Refuse what cannot be meant before anything is sent. Raises GatewayError."""
    check_user(options["user"])
    least = options["min_validity"]
    if least is not None and not 0 <= least <= MAX_MIN_VALIDITY:
        raise GatewayError(f"min_validity is {least}: give seconds from 0 to {MAX_MIN_VALIDITY}.")
    if options["user"] is not None and options["all_users"]:
        raise GatewayError("user and all_users are both set: say one of the two.")
    if options["state"] == "absent" and options["user"] is None and not options["all_users"]:
        raise GatewayError(
            "state: absent needs to know whom to log out: name a user, or set all_users: true."
        )


def users_meant(gateway: Gateway, user: str | None) -> list[dict[str, Any]]:
    """The statuses of the one user, or of all who are logged in."""
    if user is not None:
        return [gateway.status(user)]
    return [status for status in gateway.statuses() if status["status"] != "logged_out"]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "state": {"type": "str", "choices": ["present", "refreshed", "absent"], "default": "present"},
            "user": {"type": "str"},
            "all_users": {"type": "bool", "default": False},
            "min_validity": {"type": "int"},
            "force": {"type": "bool", "default": False},
            "fail_on_error": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
        **CONNECTION_RULES,
    )
    options = module.params
    try:
        check_options(options)
        gateway = Gateway.from_module(module)
        statuses = users_meant(gateway, options["user"])
        run = Run(gateway, options, check_mode=module.check_mode)
        of_all = options["state"] == "refreshed" and options["user"] is None and not module.check_mode
        job = run.refresh_all(statuses) if of_all else None
    except GatewayError as error:
        module.fail_json(msg=error.message, error_code=error.code)
    for status in statuses:
        run.treat(status)
    result = {
        "changed": bool(run.diffs),
        "users": run.reports,
        "counts": dict(Counter(report["result"] for report in run.reports)),
        "diff": run.diffs,
    }
    if job is not None:
        result["job"] = job
    message = run.failure()
    if message is not None and options["fail_on_error"]:
        module.fail_json(msg=message, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
