"""Categories, products, pictures and reviews."""

from django.conf import settings
from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVector, SearchVectorField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

SEARCH_CONFIG = "english"


class Category(models.Model):
    """A node of the tree; a root has no parent."""

    parent = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="children"
    )
    slug = models.SlugField(max_length=80, unique=True)
    name = models.CharField(max_length=80)
    position = models.PositiveIntegerField(default=0, help_text="Place among its siblings, lowest first.")

    class Meta:
        verbose_name_plural = "categories"
        ordering = ["position", "pk"]
        constraints = [
            models.CheckConstraint(
                condition=~models.Q(parent=models.F("pk")), name="category_is_not_its_own_parent"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Product(models.Model):
    """Something to buy. `search` is computed by the database: name before brand before description."""

    sku = models.CharField("SKU", max_length=32, unique=True)
    slug = models.SlugField(max_length=120, unique=True)
    name = models.CharField(max_length=200)
    brand = models.CharField(max_length=80)
    description = models.TextField(blank=True)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    currency = models.CharField(max_length=3, default="EUR", help_text="ISO 4217 code.")
    attributes = models.JSONField(default=dict, blank=True)
    weight_kg = models.DecimalField("weight (kg)", max_digits=8, decimal_places=3, null=True, blank=True)
    category = models.ForeignKey(Category, on_delete=models.PROTECT, related_name="products")
    is_active = models.BooleanField(
        default=True, help_text="Inactive products are not shown and cannot be bought."
    )
    released_on = models.DateField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(auto_now=True)
    search = models.GeneratedField(
        expression=SearchVector("name", weight="A", config=SEARCH_CONFIG)
        + SearchVector("brand", weight="B", config=SEARCH_CONFIG)
        + SearchVector("description", weight="C", config=SEARCH_CONFIG),
        output_field=SearchVectorField(),
        db_persist=True,
    )

    class Meta:
        ordering = ["-created_at", "pk"]
        constraints = [
            models.CheckConstraint(condition=models.Q(price__gte=0), name="product_price_not_negative"),
            models.CheckConstraint(
                condition=models.Q(weight_kg__isnull=True) | models.Q(weight_kg__gt=0),
                name="product_weight_positive",
            ),
        ]
        indexes = [
            GinIndex(fields=["search"], name="product_search"),
            models.Index(fields=["-created_at", "id"], name="product_newest"),
            models.Index(fields=["brand"], name="product_brand"),
            models.Index(fields=["price", "id"], name="product_price"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.sku})"


class ProductImage(models.Model):
    """A picture of a product, the one with the lowest position first."""

    product = models.ForeignKey(Product, on_delete=models.CASCADE, related_name="images")
    image = models.ImageField(upload_to="products")
    alt = models.CharField("alternative text", max_length=200, blank=True)
    position = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["position", "pk"]

    def __str__(self) -> str:
        return self.image.name or ""


class Review(models.Model):
    """One shopper's opinion of one product. `author_name` is what readers see, copied when it was written."""

    product = models.ForeignKey(Product, on_delete=models.CASCADE, related_name="reviews")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="reviews")
    author_name = models.CharField(max_length=120)
    rating = models.PositiveSmallIntegerField(validators=[MinValueValidator(1), MaxValueValidator(5)])
    title = models.CharField(max_length=120)
    body = models.TextField(blank=True)
    is_approved = models.BooleanField(default=True, help_text="Only approved reviews are shown and counted.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-created_at", "-pk"]
        constraints = [
            models.UniqueConstraint(fields=["product", "author"], name="review_one_per_author"),
            models.CheckConstraint(
                condition=models.Q(rating__range=(1, 5)), name="review_rating_from_1_to_5"
            ),
        ]
        indexes = [models.Index(fields=["product", "-created_at", "-id"], name="review_newest")]

    def __str__(self) -> str:
        return f"{self.rating}/5 by {self.author_name}"
