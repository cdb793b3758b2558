"""HTTP of the inventory: `/api/stock/{sku}/`."""

from rest_framework import generics
from rest_framework.permissions import AllowAny

from monolith.inventory.models import StockItem
from monolith.inventory.serializers import StockSerializer


class StockView(generics.RetrieveAPIView[StockItem]):
    """Stock of a product."""

    permission_classes = [AllowAny]
    serializer_class = StockSerializer
    queryset = (
        StockItem.objects.filter(product__is_active=True).select_related("product").defer("product__search")
    )
    lookup_field = "product__sku"
    lookup_url_kwarg = "sku"
