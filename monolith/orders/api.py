"""HTTP of orders: `/api/checkout/` and `/api/orders/…`."""

from typing import Any, cast

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from monolith.accounts.models import User
from monolith.orders import checkout, selectors
from monolith.orders.models import Order
from monolith.orders.serializers import CheckoutSerializer, OrderSerializer, OrderSummarySerializer
from monolith.payments.models import Payment
from monolith.payments.provider import configured_provider


class CheckoutView(APIView):
    """Buys what lies in the caller's cart."""

    permission_classes = [IsAuthenticated]
    throttle_scope = "checkout"

    @extend_schema(
        request=CheckoutSerializer,
        responses={201: OrderSerializer, 202: OrderSerializer, 402: OrderSerializer},
        parameters=[OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER, required=True)],
    )
    def post(self, request: Request) -> Response:
        """201: paid. 202: the payment is being checked. 402: declined. 409: nothing happened, see `code`.

        A repetition with the same `Idempotency-Key` answers with the same order and buys nothing.
        """
        given = CheckoutSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        user = cast("User", request.user)  # the permission let nobody else through
        result = checkout.check_out(
            checkout.CheckoutRequest(user=user, key=_idempotency_key(request), **given.validated_data),
            provider=configured_provider(),
        )
        order = selectors.order_of(user, result.order.number)
        body: dict[str, Any] = dict(OrderSerializer(order, context={"request": request}).data)
        match Payment.Status(result.payment.status):
            case Payment.Status.DECLINED:
                refusal = {"detail": "The payment was declined.", "code": result.payment.decline_code}
                return Response({**refusal, "order": body}, status=status.HTTP_402_PAYMENT_REQUIRED)
            case Payment.Status.PROCESSING | Payment.Status.UNKNOWN:
                return Response(body, status=status.HTTP_202_ACCEPTED)
            case _:
                return Response(body, status=status.HTTP_201_CREATED)


class OrderViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Order]):
    """Orders of the logged-in user, newest first."""

    permission_classes = [IsAuthenticated]
    queryset = Order.objects.none()  # names the model for the schema
    lookup_field = "number"
    lookup_value_regex = "[0-9A-Z]+"

    def get_queryset(self) -> QuerySet[Order]:
        """The caller's own; others' do not exist as far as the caller can tell."""
        return selectors.orders_of(cast("User", self.request.user))

    def get_serializer_class(self) -> type[serializers.BaseSerializer[Order]]:
        """Lists are shorter than details."""
        return OrderSummarySerializer if self.action == "list" else OrderSerializer

    def get_object(self) -> Order:
        """The order with its lines and events."""
        order = selectors.order_of(cast("User", self.request.user), self.kwargs["number"])
        if order is None:
            raise NotFound
        return order

    @extend_schema(request=None, responses=OrderSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, number: str) -> Response:
        """Cancel an order that has not left; a paid one is refunded."""
        checkout.cancel(self.get_object().pk, provider=configured_provider())
        return Response(self.get_serializer(self.get_object()).data)


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("Idempotency-Key", "").strip()
    if not key:
        raise serializers.ValidationError(
            {
                "Idempotency-Key": [
                    "This header is required: a value of your choice, the same for every repetition."
                ]
            }
        )
    if len(key) > 128 or not key.isprintable():
        raise serializers.ValidationError({"Idempotency-Key": ["At most 128 printable characters."]})
    return key
