"""How a person comes in with a browser: a one-time URL, which the browser swaps for a cookie.

Contract: the URL has its code behind `#`, so no server, log or Referer ever gets it, and whoever fetches the URL in
advance (a chat program, a scanner of mail, a browser's prefetch) fetches a page without a secret.  The page's script
sends the code by a form; the code works once and for some minutes.  The session that it becomes is always a new one, so
a cookie that somebody else has set never becomes a session.  `login_page` returns HTML and its Content-Security-Policy.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from time import time
from typing import TYPE_CHECKING

from cexec.gate.access.caller import TokenRole
from cexec.gate.access.caller_limits import DEFAULT_LIMITS
from cexec.gate.access.credential import cookie_name
from cexec.gate.access.key_rows import add_login

if TYPE_CHECKING:
    from cexec.gate.store.database import Database

LOGIN_PATH = "/login"
LOGOUT_PATH = "/logout"
_SCRIPT = """
function enter() {
  const code = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  if (!code) return;
  document.forms[0].code.value = code;
  document.forms[0].submit();
}
if (document.prerendering) document.addEventListener("prerenderingchange", enter, {once: true});
else enter();
"""
_STYLE = "body { font: 1rem sans-serif; margin: 3rem auto; max-width: 32rem } input { width: 100% }"
_PAGE = f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>cgate: log in</title>
<style>{_STYLE}</style></head>
<body><h1>cgate</h1>
<form method="post" action="{LOGIN_PATH}">
<p><label>Code of a one-time URL, which <code>cgate login</code> prints:
<input name="code" type="password" autocomplete="off" required></label></p>
<p><button>Log in</button></p>
</form>
<script>{_SCRIPT}</script></body></html>
"""


def one_time_url(
    database: Database,
    base_url: str,
    role: TokenRole = TokenRole.ADMIN,
    applications: frozenset[str] | None = None,
    lifetime: float = DEFAULT_LIMITS.login,
) -> str:
    """Returns a new URL that lets a browser in once; for commands, and before anything else goes on."""
    now = time()
    code = database.write_now(lambda connection: add_login(connection, role, applications, now, now + lifetime))
    return f"{base_url.rstrip('/')}{LOGIN_PATH}#{code.text}"


def login_page() -> tuple[bytes, str]:
    def hashed(text: str) -> str:
        return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"

    policy = (
        f"default-src 'none'; script-src {hashed(_SCRIPT)}; style-src {hashed(_STYLE)}; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    return _PAGE.encode(), policy


def session_cookie(text: str, lifetime: float, *, secure: bool) -> str:
    """Returns the value of Set-Cookie; an empty text and no lifetime take the cookie away."""
    words = [f"{cookie_name(secure)}={text}", "Path=/", f"Max-Age={int(lifetime)}", "HttpOnly", "SameSite=Strict"]
    return "; ".join([*words, "Secure"] if secure else words)
