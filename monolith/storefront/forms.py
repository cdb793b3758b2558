"""What shoppers fill in. Rules of the shop are the services' business; these check the shape."""

import uuid
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from django import forms

from monolith.accounts.models import Address
from monolith.cart.models import MOST_OF_ONE
from monolith.catalog.models import Review
from monolith.payments.provider import PAYMENT_METHODS
from monolith.storefront.wording import COUNTRIES, country_name

_SORTS = {
    "newest": "Newest first",
    "price": "Price, low to high",
    "-price": "Price, high to low",
    "rating": "Best rated",
    "name": "Name",
}
BEST_MATCH = "match"


class SearchForm(forms.Form):
    """Words, in web search syntax: quotes, `or` and `-` work."""

    q = forms.CharField(max_length=200, required=False)


class BrowseForm(forms.Form):
    """What a list of products is narrowed to and sorted by. All of it may be missing."""

    brand = forms.MultipleChoiceField(required=False, widget=forms.CheckboxSelectMultiple)
    min_price = forms.DecimalField(label="From", min_value=0, max_digits=10, decimal_places=2, required=False)
    max_price = forms.DecimalField(label="To", min_value=0, max_digits=10, decimal_places=2, required=False)
    rating = forms.TypedChoiceField(
        choices=[("", "Any"), ("4", "4 stars & up"), ("3", "3 stars & up")],
        coerce=Decimal,
        empty_value=None,
        required=False,
        widget=forms.RadioSelect,
    )
    in_stock = forms.BooleanField(label="In stock only", required=False)
    sort = forms.ChoiceField(label="Sort by", required=False)

    def __init__(
        self, data: Any, *, brands: Sequence[tuple[str, int]], searching: bool, **kwargs: Any
    ) -> None:
        super().__init__(data, auto_id="f_%s", **kwargs)
        self.fields["brand"].choices = [(name, f"{name} ({count})") for name, count in brands]  # type: ignore[attr-defined]  # the dict has plain fields
        match = [(BEST_MATCH, "Best match")] if searching else []
        self.fields["sort"].choices = [*match, *_SORTS.items()]  # type: ignore[attr-defined]  # as above
        for name in ("min_price", "max_price"):
            self.fields[name].widget.attrs |= {"inputmode": "decimal", "placeholder": "€"}

    def clean(self) -> dict[str, Any]:
        """The cheapest may not cost more than the dearest."""
        given = self.cleaned_data
        low, high = given.get("min_price"), given.get("max_price")
        if low is not None and high is not None and low > high:
            self.add_error("max_price", "This is less than the lowest price.")
        return given


class AddToCartForm(forms.Form):
    """The product page's button."""

    sku = forms.CharField(max_length=32)
    quantity = forms.IntegerField(min_value=1, max_value=MOST_OF_ONE, initial=1)


class QuantityForm(forms.Form):
    """A line of the cart; 0 removes it."""

    quantity = forms.IntegerField(min_value=0, max_value=MOST_OF_ONE)


class ReviewForm(forms.ModelForm[Review]):
    """An opinion."""

    rating = forms.TypedChoiceField(
        label="Your rating",
        choices=[(5, "Excellent"), (4, "Good"), (3, "Fair"), (2, "Poor"), (1, "Bad")],
        coerce=int,
        widget=forms.RadioSelect,
    )

    class Meta:
        model = Review
        fields = ["rating", "title", "body"]
        labels = {"title": "In a few words", "body": "Tell others more (optional)"}
        widgets = {"body": forms.Textarea(attrs={"rows": 4, "maxlength": 4000})}


class LoginForm(forms.Form):
    """E-mail and password."""

    email = forms.EmailField(
        label="E-mail address", widget=forms.EmailInput(attrs={"autocomplete": "username"})
    )
    password = forms.CharField(
        max_length=128,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )


class RegistrationForm(forms.Form):
    """A new account."""

    full_name = forms.CharField(
        label="Your name", max_length=120, widget=forms.TextInput(attrs={"autocomplete": "name"})
    )
    email = forms.EmailField(
        label="E-mail address", max_length=254, widget=forms.EmailInput(attrs={"autocomplete": "email"})
    )
    password = forms.CharField(
        max_length=128,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="At least 8 characters, not only digits, nothing that everybody uses.",
    )


_AUTOCOMPLETE = {
    "recipient": "name", "line1": "address-line1", "line2": "address-line2", "postcode": "postal-code",
    "city": "address-level2", "country": "country",
}  # fmt: skip


class AddressForm(forms.ModelForm[Address]):
    """Where orders go."""

    country = forms.ChoiceField(initial="DE")

    class Meta:
        model = Address
        fields = ["recipient", "line1", "line2", "postcode", "city", "country", "label", "is_default"]
        labels = {
            "recipient": "Full name",
            "line1": "Street and number",
            "line2": "Flat, floor, company (optional)",
            "city": "Town or city",
            "label": "Name of this address (optional)",
            "is_default": "Use as my default address",
        }
        help_texts = {"label": "For you alone, such as Home or Work."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        codes = [*COUNTRIES, *({self.instance.country} - {*COUNTRIES, ""})]
        choices = sorted(((code, country_name(code)) for code in codes), key=lambda choice: choice[1])
        self.fields["country"].choices = choices  # type: ignore[attr-defined]  # the dict has plain fields
        for name, purpose in _AUTOCOMPLETE.items():
            self.fields[name].widget.attrs["autocomplete"] = f"shipping {purpose}"


class CheckoutForm(forms.Form):
    """The last page before the money moves.

    `key` is made with the page: sending the same page twice buys once. `expected_total` is what the page
    said.
    """

    address_id = forms.TypedChoiceField(label="Deliver to", coerce=int, widget=forms.RadioSelect)
    payment_token = forms.ChoiceField(
        label="Pay with", choices=list(PAYMENT_METHODS.items()), widget=forms.RadioSelect
    )
    key = forms.CharField(max_length=128, widget=forms.HiddenInput)
    expected_total = forms.DecimalField(max_digits=12, decimal_places=2, widget=forms.HiddenInput)

    def __init__(self, *args: Any, addresses: Iterable[Address], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(address.pk, str(address)) for address in addresses]
        self.fields["address_id"].choices = choices  # type: ignore[attr-defined]  # the dict has plain fields

    @staticmethod
    def new_key() -> str:
        """A key for a page that was never sent."""
        return uuid.uuid4().hex
