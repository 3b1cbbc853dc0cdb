"""What the commands print for people, in the shape of the documents they read."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ..gateway import views
from ..messages import how_to_log_in_here
from ..results import (
    LogoutOutcome,
    RefreshedAll,
    RefreshOutcome,
    ResultCounts,
    StartedLogin,
    UserResult,
)
from ..tokens import ExportedLogin, Status, UserStatus

RULE = "=" * 60
USER = "USER"

_STATUS_WORDS = {
    Status.ACTIVE: "✅ Valid",
    Status.DUE: "✅ Valid (about to be refreshed)",
    Status.EXPIRED: "⚠️  Expired (refreshed at the next request)",
    Status.IN_DOUBT: "⚠️  In doubt (a refresh was interrupted; it is settled by itself)",
    Status.COOLING_DOWN: "⏳ Waiting before the provider is asked again",
    Status.REAUTH_REQUIRED: "❌ The provider ended this login",
    Status.UNREADABLE: "❌ The stored values do not decrypt with the present key",
    Status.LOGGED_OUT: "❌ Not logged in",
}


def login(started: StartedLogin, user_option: str) -> str:
    """The URL and what to do with it."""
    return "\n".join(
        (
            "🔐 Starting Claude OAuth authentication...",
            RULE,
            "",
            "📋 Authorization URL generated!",
            "🌐 Open it in your browser:",
            "",
            f"   {started.authorization_url}",
            "",
            RULE,
            "📝 After authorization, you'll be redirected to:",
            f"   {started.redirect_uri}",
            "",
            "⚠️  Copy the whole address of that page: this provider's CODE counts only with it"
            if started.whole_address
            else "⚠️  Copy the CODE from that page (or the CODE parameter from the redirect URL)",
            "",
            "💡 Then run, within 10 minutes:",
            f"   litellm claude callback <CODE>{user_option}",
            "   Without <CODE> it asks for the code, and the process list does not show it.",
            RULE,
        )
    )


def already(user: str, message: str) -> str:
    return f"✅ {message}\n\n💡 To log {user} in once more all the same: litellm claude login --force"


def logged_in(status: UserStatus) -> str:
    return "\n".join(("✅ Authentication successful!", RULE, *_details(status)))


def status(status: UserStatus, where: str, user_option: str) -> str:
    """``where``: what its tokens are read from."""
    lines = ["🔍 Claude OAuth Status", RULE]
    if status.status is Status.LOGGED_OUT:
        lines += [f"❌ {status.user_id} is not logged in"]
    else:
        mark = "✅" if status.authenticated else "❌"
        lines += [f"{mark} Using tokens from: {where}", "", "📊 Token Status:", *_details(status)]
    if not status.authenticated:
        lines += ["", "💡 Log in with:", f"   litellm claude login{user_option}"]
    return "\n".join(lines)


def refreshed(outcome: RefreshOutcome) -> str:
    left = duration(outcome.expires_in)
    if outcome.result == "fresh":
        return (
            f"✅ The token of {outcome.user_id} is still valid for {left}; nothing to do.\n\n"
            "💡 To refresh it all the same: litellm claude refresh --force"
        )
    return f"✅ The token of {outcome.user_id} was refreshed and is valid for {left}."


def progress(counts: ResultCounts, total: int) -> str:
    """How far a refresh of all users is. Never shorter than it was before."""
    return f"⏳ {counts.done:,} of {total:,} users: {_counted(counts)}"


def refreshed_all(done: RefreshedAll, failures: Sequence[UserResult]) -> str:
    """How a refresh of all users went; ``failures`` are the first of those who failed."""
    counts = done.counts
    if not counts.done and done.message is None:
        return "✅ Nobody is logged in; nothing to do."
    well = done.message is None and not counts.failed
    lines = [f"{'✅' if well else '❌'} {counts.done:,} users: {_counted(counts)}."]
    lines += [f"   • {one.user_id}: {one.message}" for one in failures]
    if counts.failed > len(failures):
        lines.append(f"   • and {counts.failed - len(failures):,} more")
    if done.message is not None:
        lines += ["", f"⚠️  Stopped before everybody was refreshed: {done.message}"]
        lines.append("💡 Run it again later; who was refreshed is left alone.")
    return "\n".join(lines)


def logged_out(outcome: LogoutOutcome) -> str:
    if not outcome.was_logged_in:
        return f"👋 {outcome.user_id} was not logged in."
    revoked = {
        True: "The tokens are revoked at the provider and forgotten.",
        False: "The tokens are forgotten, but the provider did not confirm that it revoked them.",
        None: "The tokens are forgotten.",
    }[outcome.revoked]
    return f"👋 {outcome.user_id} is logged out. {revoked}"


def exported(login: ExportedLogin) -> str:
    """What whoever holds the document has to know, in two lines."""
    user = login.user_id or ""
    if login.refresh_token is None:
        return f"⚠️  Whoever has this document can act as {user} until its access token ends."
    again = f"{how_to_log_in_here(user)} --force"
    return (
        f"⚠️  Whoever has this document can act as {user}. Its refresh token has one holder: the first "
        "refresh, here or there, leaves the other one with a spent token.\n"
        f"💡 So move it, do not copy it: right away, log in here again ({again}) or stop this gateway. A "
        "logout here would end it there, too."
    )


def imported(status: UserStatus) -> str:
    lines = [f"✅ {status.user_id} is logged in with the imported tokens.", RULE, *_details(status)]
    if not status.has_refresh_token and status.warning is None:
        lines += ["", "⚠️  They came without a refresh token, so the login ends when the access token does."]
    return "\n".join(lines)


def users_title(width: int) -> str:
    return _columns(width, USER, "STATUS", "VALID FOR", "ACCOUNT OR LAST ERROR")


def users_line(status: UserStatus, width: int) -> str:
    """One user; the columns are those of the playbooks."""
    told = status.last_error or _email_address(status) or "-"
    return _columns(width, status.user_id, status.status.replace("_", " "), _left(status.expires_in), told)


def no_users(after: str | None) -> str:
    return "Nobody is logged in yet." if after is None else f"Nobody comes after {after}."


def more_users(last: str) -> str:
    return f"\n💡 There may be more: litellm claude users --after {shlex.quote(last)}"


def duration(seconds: float) -> str:
    """A length of time in the largest fitting unit."""
    for name, length in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= length * (2 if name == "days" else 1):
            return f"{seconds / length:.1f} {name}"
    return f"{max(0, int(seconds))} seconds"


def _left(seconds: float | None) -> str:
    """What is left, to the minute."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{rest} s"


def _columns(width: int, user: str, status: str, left: str, told: str) -> str:
    return f"{user:<{width}}  {status:<15}  {left:<12}  {told}"


def _counted(counts: ResultCounts) -> str:
    told = f"{counts.refreshed:,} refreshed, {counts.fresh:,} still valid, {counts.failed:,} failed"
    return f"{told}, {counts.skipped:,} not tried" if counts.skipped else told


def _details(status: UserStatus) -> list[str]:
    lines = [f"   • User: {status.user_id}", f"   • Status: {_STATUS_WORDS[status.status]}"]
    if status.expires_in is not None:
        lines.append(f"   • Expires in: {duration(status.expires_in)}")
    if address := _email_address(status):
        lines.append(f"   • Account: {address}")
    if status.login_ends_at is not None:
        lines.append(f"   • Log in again before: {views.moment(status.login_ends_at)}")
    if status.last_error:
        lines.append(f"   • Last error: {status.last_error}")
    if status.warning:
        lines += ["", f"⚠️  {status.warning}"]
    return lines


def _email_address(status: UserStatus) -> str | None:
    """The account's address, where the provider named one."""
    account = (status.account or {}).get("account")
    address = account.get("email_address") if isinstance(account, dict) else None
    return address if isinstance(address, str) else None
