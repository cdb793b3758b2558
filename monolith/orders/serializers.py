"""JSON of orders."""

from typing import Any

from rest_framework import serializers

from monolith.orders.models import Order, OrderEvent, OrderLine
from monolith.payments.models import Payment


class OrderLineSerializer(serializers.ModelSerializer[OrderLine]):
    """A product as it was bought."""

    class Meta:
        model = OrderLine
        fields = ["sku", "name", "unit_price", "quantity", "line_total"]


class OrderEventSerializer(serializers.ModelSerializer[OrderEvent]):
    """A step of the order."""

    class Meta:
        model = OrderEvent
        fields = ["from_status", "to_status", "note", "at"]


class PaymentSerializer(serializers.ModelSerializer[Payment]):
    """What a shopper may know of the payment."""

    class Meta:
        model = Payment
        fields = ["status", "amount", "currency", "decline_code"]


class OrderSummarySerializer(serializers.HyperlinkedModelSerializer[Order]):
    """An order in a list."""

    url = serializers.HyperlinkedIdentityField(view_name="order-detail", lookup_field="number")
    line_count = serializers.IntegerField()
    payment_status = serializers.CharField(source="payment.status")

    class Meta:
        model = Order
        fields = [
            "number", "url", "status", "payment_status", "currency", "total", "line_count", "placed_at",
            "updated_at",
        ]  # fmt: skip


class ShippingAddressSerializer(serializers.ModelSerializer[Order]):
    """Where the order goes."""

    class Meta:
        model = Order
        fields = ["recipient", "line1", "line2", "postcode", "city", "country"]


class OrderSerializer(OrderSummarySerializer):
    """An order on its own."""

    shipping_address = ShippingAddressSerializer(source="*")
    payment = PaymentSerializer()
    lines = OrderLineSerializer(many=True)
    events = OrderEventSerializer(many=True)

    class Meta(OrderSummarySerializer.Meta):
        fields = [
            *OrderSummarySerializer.Meta.fields, "items_total", "shipping_total", "shipping_address",
            "payment", "lines", "events",
        ]  # fmt: skip


class CheckoutSerializer(serializers.Serializer[Any]):
    """What a checkout needs, besides the header `Idempotency-Key`."""

    address_id = serializers.IntegerField()
    payment_token = serializers.CharField(max_length=64)
    expected_total = serializers.DecimalField(
        max_digits=12, decimal_places=2, required=False, help_text="Refuse when the total is another one."
    )
