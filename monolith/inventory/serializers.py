"""JSON of the inventory."""

from rest_framework import serializers

from monolith.inventory.models import StockItem


class StockSerializer(serializers.ModelSerializer[StockItem]):
    """What shoppers may know about stock."""

    sku = serializers.CharField(source="product.sku")
    available = serializers.IntegerField()
    in_stock = serializers.SerializerMethodField()

    class Meta:
        model = StockItem
        fields = ["sku", "available", "in_stock", "updated_at"]

    def get_in_stock(self, item: StockItem) -> bool:
        """Whether at least one piece can be sold."""
        return item.available > 0
