"""What a service raises when the shop's rules say no.

A `ShopError` is the caller's news, not a bug: the API answers it with `status` and a JSON body, pages show
`message`.
"""

from typing import ClassVar


class ShopError(Exception):
    """A refusal by a rule of the shop. `code` is for programs, `message` for shoppers, `details` for both."""

    status: ClassVar[int] = 409
    code: ClassVar[str] = "conflict"

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
