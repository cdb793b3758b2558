"""The catalogue in the admin."""

from django.contrib import admin

from monolith.catalog.models import Category, Product, ProductImage, Review


@admin.register(Category)
class CategoryAdmin(admin.ModelAdmin[Category]):
    """The tree, as a list with parents."""

    list_display = ["name", "slug", "parent", "position"]
    list_select_related = ["parent"]
    list_editable = ["position"]
    search_fields = ["name", "slug"]
    autocomplete_fields = ["parent"]
    prepopulated_fields = {"slug": ["name"]}


class ProductImageInline(admin.TabularInline[ProductImage, Product]):
    """Pictures on the product's page."""

    model = ProductImage
    extra = 0


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin[Product]):
    """Products; prices can be changed in the list."""

    list_display = ["sku", "name", "brand", "category", "price", "currency", "is_active", "updated_at"]
    list_editable = ["price", "is_active"]
    list_filter = ["is_active", "category"]
    list_select_related = ["category"]
    list_per_page = 50
    show_full_result_count = False
    search_fields = ["sku", "name", "brand"]
    autocomplete_fields = ["category"]
    prepopulated_fields = {"slug": ["name"]}
    readonly_fields = ["created_at", "updated_at"]
    inlines = [ProductImageInline]


@admin.register(ProductImage)
class ProductImageAdmin(admin.ModelAdmin[ProductImage]):
    """All pictures."""

    list_display = ["image", "product", "alt", "position"]
    list_select_related = ["product"]
    search_fields = ["product__sku", "product__name", "alt"]
    autocomplete_fields = ["product"]


@admin.register(Review)
class ReviewAdmin(admin.ModelAdmin[Review]):
    """Reviews to moderate: what was written cannot be changed, only hidden."""

    list_display = ["product", "author_name", "rating", "title", "is_approved", "created_at"]
    list_editable = ["is_approved"]
    list_filter = ["is_approved", "rating"]
    list_select_related = ["product"]
    date_hierarchy = "created_at"
    search_fields = ["product__sku", "product__name", "author__email", "title"]
    readonly_fields = ["product", "author", "author_name", "rating", "title", "body", "created_at"]
