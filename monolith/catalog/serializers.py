"""JSON of the catalogue."""

from typing import Any

from rest_framework import serializers

from monolith.catalog.models import Category, Product, ProductImage, Review
from monolith.catalog.selectors import CategoryNode, CategoryPlace


class CategoryReferenceSerializer(serializers.ModelSerializer[Category]):
    """Enough of a category to link to it."""

    class Meta:
        model = Category
        fields = ["id", "slug", "name"]


class CategoryTreeSerializer(serializers.Serializer[CategoryNode]):
    """A category and everything below it."""

    id = serializers.IntegerField()
    slug = serializers.CharField()
    name = serializers.CharField()
    product_count = serializers.IntegerField()
    children = serializers.SerializerMethodField()

    def get_children(self, node: CategoryNode) -> list[dict[str, Any]]:
        """The categories right below, each with its own."""
        return [dict(CategoryTreeSerializer(child).data) for child in node.children]


class CategorySummarySerializer(serializers.Serializer[CategoryNode]):
    """A category without what is below it."""

    id = serializers.IntegerField()
    slug = serializers.CharField()
    name = serializers.CharField()
    product_count = serializers.IntegerField()


class CategoryDetailSerializer(serializers.Serializer[CategoryPlace]):
    """A category, the way to it and the categories right below."""

    id = serializers.IntegerField(source="node.id")
    slug = serializers.CharField(source="node.slug")
    name = serializers.CharField(source="node.name")
    product_count = serializers.IntegerField(source="node.product_count")
    breadcrumbs = CategorySummarySerializer(many=True)
    children = CategorySummarySerializer(source="node.children", many=True)


class ProductImageSerializer(serializers.ModelSerializer[ProductImage]):
    """A picture; `image` is an absolute URL."""

    class Meta:
        model = ProductImage
        fields = ["image", "alt", "position"]


class ProductSerializer(serializers.HyperlinkedModelSerializer[Product]):
    """A product in a list."""

    url = serializers.HyperlinkedIdentityField(view_name="product-detail", lookup_field="slug")
    category = CategoryReferenceSerializer()
    image = serializers.SerializerMethodField()
    rating = serializers.DecimalField(max_digits=3, decimal_places=2, allow_null=True)
    review_count = serializers.IntegerField()

    class Meta:
        model = Product
        fields = [
            "id", "sku", "slug", "url", "name", "brand", "price", "currency", "category", "image", "rating",
            "review_count", "released_on", "created_at", "updated_at",
        ]  # fmt: skip

    def get_image(self, product: Product) -> str | None:
        """Absolute URL of the first picture."""
        for picture in product.images.all():  # prefetched and sorted by the selector
            url: str = self.context["request"].build_absolute_uri(picture.image.url)
            return url
        return None


class ProductDetailSerializer(ProductSerializer):
    """A product on its own."""

    images = ProductImageSerializer(many=True)

    class Meta(ProductSerializer.Meta):
        fields = [*ProductSerializer.Meta.fields, "description", "attributes", "weight_kg", "images"]


class ProductUpdateSerializer(serializers.ModelSerializer[Product]):
    """What staff may change."""

    category = serializers.SlugRelatedField(slug_field="slug", queryset=Category.objects.all())

    class Meta:
        model = Product
        fields = [
            "name", "brand", "description", "price", "currency", "attributes", "weight_kg", "category",
            "is_active", "released_on",
        ]  # fmt: skip
        extra_kwargs = {"price": {"min_value": 0}, "currency": {"min_length": 3}}

    def validate_attributes(self, value: object) -> dict[str, Any]:
        """A JSON object, as pages and filters expect."""
        if not isinstance(value, dict):
            raise serializers.ValidationError("Expected an object.")
        return value


class ReviewSerializer(serializers.ModelSerializer[Review]):
    """A review as readers see it, and as authors send it (rating, title, body)."""

    class Meta:
        model = Review
        fields = ["id", "author_name", "rating", "title", "body", "created_at"]
        read_only_fields = ["author_name", "created_at"]
