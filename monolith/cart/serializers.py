"""JSON of carts."""

from typing import Any

from rest_framework import serializers

from monolith.cart.models import MOST_OF_ONE
from monolith.cart.selectors import CartContents, CartLine
from monolith.catalog.models import Product


class CartProductSerializer(serializers.HyperlinkedModelSerializer[Product]):
    """Enough of a product to show it in a cart."""

    url = serializers.HyperlinkedIdentityField(view_name="product-detail", lookup_field="slug")
    image = serializers.SerializerMethodField()

    class Meta:
        model = Product
        fields = ["id", "sku", "slug", "url", "name", "price", "currency", "image"]

    def get_image(self, product: Product) -> str | None:
        """Absolute URL of the first picture."""
        for picture in product.images.all():  # prefetched and sorted by the selector
            url: str = self.context["request"].build_absolute_uri(picture.image.url)
            return url
        return None


class CartLineSerializer(serializers.Serializer[CartLine]):
    """One item."""

    id = serializers.IntegerField()
    product = CartProductSerializer()
    quantity = serializers.IntegerField()
    line_total = serializers.DecimalField(max_digits=12, decimal_places=2)
    available = serializers.IntegerField()


class CartSerializer(serializers.Serializer[CartContents]):
    """The whole cart."""

    items = CartLineSerializer(many=True)
    count = serializers.IntegerField()
    items_total = serializers.DecimalField(source="totals.items", max_digits=12, decimal_places=2)
    shipping_total = serializers.DecimalField(source="totals.shipping", max_digits=12, decimal_places=2)
    total = serializers.DecimalField(source="totals.total", max_digits=12, decimal_places=2)


class NewItemSerializer(serializers.Serializer[Any]):
    """What to put in."""

    sku = serializers.CharField(max_length=32)
    quantity = serializers.IntegerField(min_value=1, max_value=MOST_OF_ONE, default=1)


class QuantitySerializer(serializers.Serializer[Any]):
    """How many to keep."""

    quantity = serializers.IntegerField(min_value=0, max_value=MOST_OF_ONE)
