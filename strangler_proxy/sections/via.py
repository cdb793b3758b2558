"""Section `via`: what the proxy says of itself to those before and behind it.

via:
  name: strangler    # its pseudonym; give each of several in a row its own
  requests: true     # to backends; without it a circle is not noticed
  responses: false   # to clients
"""

from strangler_proxy.sections.fields import Strict, Token
from strangler_proxy.via import Via


class ViaFile(Strict):
    """The section."""

    name: Token = "strangler"
    requests: bool = True
    responses: bool = False

    def value(self) -> Via:
        """The frozen value."""
        return Via(self.name.encode(), requests=self.requests, responses=self.responses)
