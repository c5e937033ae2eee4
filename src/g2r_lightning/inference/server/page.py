"""The page to chat on: one file, sent as it is, with a policy that lets it load and run nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from importlib import resources

from starlette.responses import Response


@dataclass(frozen=True)
class Page:
    """A page and its Content-Security-Policy."""

    html: bytes
    policy: str

    def response(self) -> Response:
        """Return it as a response."""
        headers = {"content-security-policy": self.policy, "cache-control": "no-cache", "x-frame-options": "DENY"}
        return Response(self.html, headers=headers, media_type="text/html")


def read_page() -> Page:
    """Return the page that ships with the package."""
    html = (resources.files(__package__) / "page.html").read_text(encoding="utf-8")
    return Page(html.encode(), policy_of(html))


def policy_of(html: str) -> str:
    """Return the strictest policy under which a page with inline scripts and styles works.

    >>> policy_of("<script>1</script>").split("; ")[1]
    "script-src 'sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s='"
    """
    hashes = {
        name: " ".join(f"'sha256-{_digest(text)}'" for text in re.findall(rf"<{name}>(.*?)</{name}>", html, re.DOTALL))
        for name in ("script", "style")
    }
    return "; ".join([
        "default-src 'none'", f"script-src {hashes['script'] or _NONE}", f"style-src {hashes['style'] or _NONE}",
        "img-src data:", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    ])  # fmt: skip


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_NONE = "'none'"
