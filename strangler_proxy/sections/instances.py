"""Where a backend is: `url`, or several `instances`.

catalog:
  instances: [http://127.0.0.1:8101, http://127.0.0.1:8102]
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from strangler_proxy.cluster.several import Address, Several
from strangler_proxy.sections.fields import Strict, Url, address_of


class Place(Strict):
    """The keys of a backend that say where it is."""

    url: Url | None = None
    instances: Annotated[list[Url], Field(min_length=1, max_length=1000)] | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        given = [key for key in ("url", "instances") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"a backend has one of url and instances, not {' and '.join(given) or 'none'}")
        addresses = [address_of(url) for url in self.instances or ()]
        twice = [address.url for address in dict.fromkeys(addresses) if addresses.count(address) > 1]
        if twice:
            raise ValueError(f"{twice[0]} stands twice among the instances")
        return self

    def address(self) -> Address:
        """The first that the file names."""
        return address_of(([self.url] if self.url is not None else self.instances or [])[0])

    def several(self) -> Several | None:
        """The frozen value; None for one `url`."""
        return None if self.instances is None else Several(tuple(map(address_of, self.instances)))
