"""One purchase from beginning to end, over gRPC through the gateway.

An operator creates an event and a campaign. A buyer logs in, waits for the opening on a stream, claims a coupon, orders
two lines with it, pays with a card that is declined and then with one that works, and watches the order until it is
fulfilled. What came of it is checked at each step; the first check that does not hold ends the story with exit code 1.

Reads STAMPEDE_URL, such as http://127.0.0.1:8080, and STAMPEDE_OPERATOR_TOKEN.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TypeVar
from urllib.parse import urlsplit

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from stampede.coupon.v1 import coupon_pb2, coupon_pb2_grpc
from stampede.event.v1 import event_pb2, event_pb2_grpc
from stampede.inventory.v1 import inventory_pb2, inventory_pb2_grpc
from stampede.order.v1 import order_pb2, order_pb2_grpc
from stampede.type.v1 import decline_pb2, money_pb2

Request = TypeVar("Request")
Response = TypeVar("Response")

# The domain of every reason that Stampede gives.
DOMAIN = "stampede.sale"
# How long one try of a call may take.
CALL_S = 5.0
# How long the story waits for anything: a stream, or calls that are repeated.
PATIENCE_S = 30.0
# Bounds of the wait before a repeat. It doubles with each try, and is cut by chance to between half and the whole.
LEAST_BACKOFF_S = 0.1
MOST_BACKOFF_S = 2.0

CHANNEL_OPTIONS = (
    # Calls are repeated in one place, which is here.
    ("grpc.service_config_disable_resolution", 1),
    # Notices a connection that is dead and was never closed while a call or a stream waits on it.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A stream sends nothing after its request: without this it is pinged rarely, or not at all, after two pings.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A page of the largest events is longer than what gRPC takes by itself.
    ("grpc.max_receive_message_length", 24 * 1024 * 1024),
)


@dataclass(frozen=True)
class Refusal:
    """What a failed call says: match on the reason, never on the text."""

    code: grpc.StatusCode
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    # How long to wait before a repeat; None where a repeat gets the same answer.
    retry_after_s: float | None = None


def refusal_of(error: grpc.RpcError) -> Refusal:
    """Reads the details of an error: google.rpc.ErrorInfo and RetryInfo."""
    if not isinstance(error, grpc.Call):
        raise error
    reason, metadata, retry_after_s = "", dict[str, str](), None
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason, metadata = info.reason, dict(info.metadata)
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    return Refusal(error.code(), reason, metadata, retry_after_s)


def connect(url: str) -> grpc.Channel:
    """Opens a channel, which is shared by all calls: in plaintext for http, over TLS for https."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        target = f"{parts.hostname}:{parts.port or 443}"
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(), options=CHANNEL_OPTIONS)
    return grpc.insecure_channel(f"{parts.hostname}:{parts.port or 80}", options=CHANNEL_OPTIONS)


def log_in(url: str) -> tuple[str, str]:
    """Returns the id of a new anonymous buyer and their access token."""
    request = urllib.request.Request(f"{url}/v1/auth/tokens", method="POST")
    with urllib.request.urlopen(request, timeout=CALL_S) as answer:
        pair = json.load(answer)
    return pair["user_id"], pair["access_token"]


def bearer(token: str | None) -> tuple[tuple[str, str], ...]:
    """Returns the metadata that a token travels in; none for what everybody may call."""
    return (("authorization", f"Bearer {token}"),) if token else ()


def call(
    method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request, token: str | None = None
) -> Response:
    """Calls a method. Repeats the same request where that may help.

    That is safe for every method: those that write carry a request_id, and a repeat of one has no second effect.
    """
    end = time.monotonic() + PATIENCE_S
    tries = 0
    while True:
        tries += 1
        try:
            return method(request, timeout=CALL_S, metadata=bearer(token), wait_for_ready=True)
        except grpc.RpcError as error:
            wait_to_repeat(error, tries, end)


def wait_to_repeat(error: grpc.RpcError, tries: int, end: float) -> None:
    """Waits until the next try is due; raises the error if there must be none, or there is no time for one."""
    refusal = refusal_of(error)
    # Nobody had the call; or its answer is lost, and what was asked for may be done: the repeat tells.
    may_help = refusal.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    if refusal.retry_after_s is None and not may_help:
        raise error
    backoff_s = min(LEAST_BACKOFF_S * 2.0 ** (tries - 1), MOST_BACKOFF_S)
    wait_s = (refusal.retry_after_s or 0.0) + backoff_s * random.uniform(0.5, 1.0)
    if time.monotonic() + wait_s > end:
        raise error
    time.sleep(wait_s)


def watch(
    method: grpc.UnaryStreamMultiCallable[Request, Response],
    request: Request,
    token: str | None,
    found: Callable[[Response], bool],
) -> Response:
    """Reads a stream until what it sends is the right thing, and cancels it.

    Opens a stream that broke again: each begins with the present state, so nothing is missed.
    """
    end = time.monotonic() + PATIENCE_S
    tries = 0
    while True:
        tries += 1
        left_s = max(end - time.monotonic(), 0.0)
        stream = method(request, timeout=left_s, metadata=bearer(token), wait_for_ready=True)
        try:
            for update in stream:
                if found(update):
                    stream.cancel()
                    return update
                tries = 1
            sys.exit("the stream ended before it sent what was waited for")
        except grpc.RpcError as error:
            wait_to_repeat(error, tries, end)


def check(holds: bool, what: str) -> None:
    """Ends the story where something is not as it should be."""
    if not holds:
        sys.exit(f"not so: {what}")


def say(line: str) -> None:
    """Tells one step."""
    print(f"  {line}", flush=True)


def eur(minor_units: int) -> money_pb2.Money:
    """Returns an amount; 1999 is 19.99 EUR."""
    return money_pb2.Money(minor_units=minor_units, currency="EUR")


def new_id() -> str:
    """Returns a request_id. One is chosen for each thing to be done, and kept for all repeats of it."""
    return str(uuid.uuid4())


class Operator:
    """Prepares a sale."""

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        self.token = token
        self.events = event_pb2_grpc.EventServiceStub(channel)
        self.coupons = coupon_pb2_grpc.CouponServiceStub(channel)
        self.stock = inventory_pb2_grpc.InventoryServiceStub(channel)

    def create_event(self) -> event_pb2.Event:
        """Creates an event that opens in three seconds, with two items, and waits until they are staged."""
        now = datetime.now(timezone.utc)
        request = event_pb2.CreateEventRequest(
            request_id=new_id(),
            name="A story in Python",
            open_time=now + timedelta(seconds=3),
            close_time=now + timedelta(hours=1),
            items=[
                event_pb2.NewItem(title="Lantern", unit_price=eur(1999), total_units=10, limit_per_buyer=2),
                event_pb2.NewItem(
                    title="Tent",
                    unit_price=eur(4500),
                    total_units=5,
                    limit_per_buyer=1,
                    gift=event_pb2.Gift(title="Pegs", total_units=2),
                ),
            ],
        )
        event = call(self.events.CreateEvent, request, self.token).event
        self.wait_for_stock(event.event_id)
        return event

    def wait_for_stock(self, event_id: str) -> None:
        """Waits until the inventory has heard of an event, which takes a moment."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                call(self.stock.GetStock, inventory_pb2.GetStockRequest(event_id=event_id))
                return
            except grpc.RpcError as error:
                if refusal_of(error).reason != "EVENT_NOT_FOUND" or time.monotonic() > end:
                    raise
            time.sleep(random.uniform(0.1, 0.3))

    def create_campaign(self, event_id: str) -> coupon_pb2.Campaign:
        """Creates a campaign of coupons for the event, which can be claimed at once."""
        now = datetime.now(timezone.utc)
        request = coupon_pb2.CreateCampaignRequest(
            request_id=new_id(),
            name="Five euros off",
            quota=3,
            discount=eur(500),
            event_id=event_id,
            open_time=now - timedelta(seconds=1),
            close_time=now + timedelta(hours=1),
        )
        return call(self.coupons.CreateCampaign, request, self.token).campaign


class Buyer:
    """Claims, orders and pays."""

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        self.token = token
        self.events = event_pb2_grpc.EventServiceStub(channel)
        self.coupons = coupon_pb2_grpc.CouponServiceStub(channel)
        self.stock = inventory_pb2_grpc.InventoryServiceStub(channel)
        self.orders = order_pb2_grpc.OrderServiceStub(channel)

    def wait_for_opening(self, event_id: str) -> event_pb2.Event:
        """Waits on a stream until the event is open."""
        request = event_pb2.WatchEventsRequest(event_ids=[event_id])
        is_open = event_pb2.EventState.EVENT_STATE_OPEN
        return watch(self.events.WatchEvents, request, None, lambda update: update.event.state == is_open).event

    def claim(self, campaign_id: str) -> coupon_pb2.Coupon:
        """Claims a coupon. Whoever has one of the campaign already gets that."""
        request = coupon_pb2.ClaimCouponRequest(campaign_id=campaign_id, request_id=new_id())
        try:
            return call(self.coupons.ClaimCoupon, request, self.token).coupon
        except grpc.RpcError as error:
            refusal = refusal_of(error)
            if refusal.reason != "ALREADY_CLAIMED":
                raise
            say(f"refused as {refusal.reason}, which names {refusal.metadata['coupon_id']}")
            coupon = coupon_pb2.GetCouponRequest(coupon_id=refusal.metadata["coupon_id"])
            return call(self.coupons.GetCoupon, coupon, self.token).coupon

    def order(self, event: event_pb2.Event, units: Sequence[int], coupon_id: str) -> order_pb2.Order:
        """Orders so many units of each item."""
        lines = [order_pb2.NewOrderLine(item_id=item.item_id, units=n) for item, n in zip(event.items, units)]
        request = order_pb2.PlaceOrderRequest(
            request_id=new_id(), event_id=event.event_id, lines=lines, coupon_id=coupon_id
        )
        return call(self.orders.PlaceOrder, request, self.token).order

    def pay(self, order_id: str, card: str) -> order_pb2.Order:
        """Pays, and watches the order until it is known what came of it."""
        request = order_pb2.PayOrderRequest(order_id=order_id, request_id=new_id(), payment_method=card)
        paying = call(self.orders.PayOrder, request, self.token).order
        under_way = (order_pb2.OrderState.ORDER_STATE_PAYING, order_pb2.OrderState.ORDER_STATE_PAID)

        def is_known(update: order_pb2.WatchOrderResponse) -> bool:
            return update.order.version >= paying.version and update.order.state not in under_way

        to_watch = order_pb2.WatchOrderRequest(order_id=order_id)
        return watch(self.orders.WatchOrder, to_watch, self.token, is_known).order


def check_order(order: order_pb2.Order) -> None:
    """Checks what the buyer pays."""
    check(order.state == order_pb2.OrderState.ORDER_STATE_AWAITING_PAYMENT, "the order waits for its payment")
    totals = (order.subtotal.minor_units, order.discount.minor_units, order.total.minor_units)
    check(totals == (2 * 1999 + 4500, 500, 2 * 1999 + 4500 - 500), f"the totals are right, not {totals}")


def check_goods(order: order_pb2.Order, event: event_pb2.Event) -> None:
    """Checks what the buyer has got."""
    lantern, tent = (item.item_id for item in event.items)
    kinds = order_pb2.GoodsKind
    wanted = {
        (lantern, kinds.GOODS_KIND_ITEM, 2),
        (tent, kinds.GOODS_KIND_ITEM, 1),
        (tent, kinds.GOODS_KIND_GIFT, 1),
    }
    granted = {(goods.item_id, goods.kind, goods.units) for goods in order.goods}
    check(granted == wanted, "the goods are what was bought")


def check_stock(stocks: Sequence[inventory_pb2.Stock]) -> None:
    """Checks what the ledger has left."""
    left = [(stock.committed_units, stock.left_units, stock.left_gift_units) for stock in stocks]
    check(sorted(left) == [(1, 4, 1), (2, 8, 0)], f"the ledger has what was bought, and the rest is left, not {left}")


def main() -> None:
    """Tells the story."""
    url = os.environ.get("STAMPEDE_URL", "http://127.0.0.1:8080").rstrip("/")
    operator_token = os.environ.get("STAMPEDE_OPERATOR_TOKEN") or sys.exit("STAMPEDE_OPERATOR_TOKEN is not set")
    with connect(url) as channel:
        operator = Operator(channel, operator_token)
        event = operator.create_event()
        campaign = operator.create_campaign(event.event_id)
        say(f"created {event.event_id} and {campaign.campaign_id}")

        user_id, token = log_in(url)
        buyer = Buyer(channel, token)
        say(f"logged in as {user_id}")
        buyer.wait_for_opening(event.event_id)
        say("the event is open")

        coupon = buyer.claim(campaign.campaign_id)
        say(f"claimed {coupon.coupon_id}, rank {coupon.rank}")
        check(buyer.claim(campaign.campaign_id).coupon_id == coupon.coupon_id, "there is one coupon for each buyer")

        order = buyer.order(event, [2, 1], coupon.coupon_id)
        check_order(order)
        say(f"ordered {order.order_id}, {order.total.minor_units / 100:.2f} {order.total.currency}")

        declined = buyer.pay(order.order_id, "pm_card_declined")
        awaits = declined.state == order_pb2.OrderState.ORDER_STATE_AWAITING_PAYMENT
        check(awaits, "a declined order can be paid again")
        why = decline_pb2.DeclineCode.DECLINE_CODE_CARD_DECLINED
        check(declined.last_decline == why, "it says why it was declined")
        say("the first card was declined")

        paid = buyer.pay(order.order_id, "pm_card_ok")
        check(paid.state == order_pb2.OrderState.ORDER_STATE_FULFILLED, "a paid order is fulfilled")
        check_goods(paid, event)
        say("the second card was charged, and the goods are granted")

        stock = call(buyer.stock.GetStock, inventory_pb2.GetStockRequest(event_id=event.event_id))
        check_stock(stock.stocks)
        say("the ledger has what was bought")


if __name__ == "__main__":
    main()
