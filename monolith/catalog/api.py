"""HTTP of the catalogue: `/api/products/…` and `/api/categories/…`."""

from typing import Any, cast

from django.db.models import QuerySet
from django.http import Http404
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics, mixins, serializers, viewsets
from rest_framework.generics import get_object_or_404
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from monolith.accounts.models import User
from monolith.catalog import selectors, services
from monolith.catalog.filters import ProductFilter, ProductOrdering
from monolith.catalog.models import Product, Review
from monolith.catalog.serializers import (
    CategoryDetailSerializer,
    CategoryTreeSerializer,
    ProductDetailSerializer,
    ProductSerializer,
    ProductUpdateSerializer,
    ReviewSerializer,
)
from monolith.config.rest import StaffOrReadOnly


class ProductViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Product]):
    """Products of the shop."""

    permission_classes = [StaffOrReadOnly]
    filter_backends = [DjangoFilterBackend, ProductOrdering]
    filterset_class = ProductFilter
    lookup_field = "slug"
    lookup_value_regex = "[-a-zA-Z0-9_]+"

    def get_queryset(self) -> QuerySet[Product]:
        """Active products; staff may change inactive ones too."""
        match self.action:
            case "list":
                return selectors.active_products()
            case "partial_update":
                return selectors.with_details(selectors.all_products())
            case _:
                return selectors.with_details(selectors.active_products())

    def get_serializer_class(self) -> type[serializers.BaseSerializer[Product]]:
        """Lists are shorter than details."""
        return ProductSerializer if self.action == "list" else ProductDetailSerializer

    @extend_schema(request=ProductUpdateSerializer, responses=ProductDetailSerializer)
    def partial_update(self, request: Request, slug: str) -> Response:
        """Change a product (staff only); answers with the whole product."""
        product = self.get_object()
        given = ProductUpdateSerializer(product, data=request.data, partial=True)
        given.is_valid(raise_exception=True)
        services.update_product(product.pk, given.validated_data)
        return Response(self.get_serializer(self.get_queryset().get(pk=product.pk)).data)


class ReviewListView(generics.ListCreateAPIView[Review]):
    """Reviews of a product, newest first."""

    serializer_class = ReviewSerializer
    queryset = Review.objects.none()  # names the model for the schema
    throttle_scope = "review"

    def get_queryset(self) -> QuerySet[Review]:
        """Approved reviews of the product in the URL."""
        return selectors.approved_reviews(self._product())

    def perform_create(self, serializer: serializers.BaseSerializer[Review]) -> None:
        """Publish the caller's review; a second one for the same product is refused with 400."""
        serializer.instance = services.write_review(
            product=self._product(),
            author=cast("User", self.request.user),  # the permission let nobody else through
            **cast("serializers.Serializer[Any]", serializer).validated_data,
        )

    def _product(self) -> Product:
        return get_object_or_404(selectors.reviewable_products(), slug=self.kwargs["slug"])


@extend_schema_view(
    list=extend_schema(responses=CategoryTreeSerializer(many=True)),
    retrieve=extend_schema(responses=CategoryDetailSerializer),
)
class CategoryViewSet(viewsets.ViewSet):
    """Categories of the shop."""

    permission_classes = [AllowAny]
    lookup_field = "slug"
    lookup_value_regex = "[-a-zA-Z0-9_]+"

    def list(self, _request: Request) -> Response:
        """The whole tree."""
        return Response([CategoryTreeSerializer(root).data for root in selectors.category_tree()])

    def retrieve(self, _request: Request, slug: str) -> Response:
        """One category with breadcrumbs and children."""
        place = selectors.category_place(slug)
        if place is None:
            raise Http404
        return Response(CategoryDetailSerializer(place).data)
