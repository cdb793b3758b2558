"""HTTP of carts: `/api/cart/…`, for users and for anonymous sessions alike."""

from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from monolith.cart import selectors, services
from monolith.cart.serializers import CartSerializer, NewItemSerializer, QuantitySerializer
from monolith.cart.session import CartOwner, owner_for_writing, owner_of
from monolith.config.rest import django_request


class CartView(APIView):
    """The caller's cart."""

    permission_classes = [AllowAny]

    @extend_schema(responses=CartSerializer)
    def get(self, request: Request) -> Response:
        """The cart; an empty one for those who have none."""
        return _answer(request, owner_of(django_request(request)))


class CartItemsView(APIView):
    """Items of the caller's cart."""

    permission_classes = [AllowAny]

    @extend_schema(request=NewItemSerializer, responses={201: CartSerializer})
    def post(self, request: Request) -> Response:
        """Put pieces of a product in; answers with the cart."""
        given = NewItemSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        owner = owner_for_writing(django_request(request))
        services.add_item(owner, **given.validated_data)
        return _answer(request, owner, status=status.HTTP_201_CREATED)


class CartItemView(APIView):
    """One item of the caller's cart."""

    permission_classes = [AllowAny]

    @extend_schema(request=QuantitySerializer, responses=CartSerializer)
    def patch(self, request: Request, item_id: int) -> Response:
        """Change the quantity; answers with the cart."""
        given = QuantitySerializer(data=request.data)
        given.is_valid(raise_exception=True)
        owner = owner_of(django_request(request))
        services.set_quantity(owner, item_id=item_id, **given.validated_data)
        return _answer(request, owner)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, item_id: int) -> Response:
        """Take the item out."""
        services.remove_item(owner_of(django_request(request)), item_id=item_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


def _answer(request: Request, owner: CartOwner, *, status: int = status.HTTP_200_OK) -> Response:
    contents = selectors.contents(owner)
    return Response(CartSerializer(contents, context={"request": request}).data, status=status)
