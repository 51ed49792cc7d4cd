// One purchase from beginning to end, through the gateway: Connect for unary calls, gRPC-Web for streams.
//
// An operator creates an event and a campaign. A buyer logs in, waits for the opening on a stream, claims a coupon,
// orders two lines with it, pays with a card that is declined and then with one that works, and watches the order until
// it is fulfilled. What came of it is checked at each step; the first check that does not hold ends the story with exit
// code 1.
//
// Reads STAMPEDE_URL, such as http://127.0.0.1:8080, and STAMPEDE_OPERATOR_TOKEN.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";

import { durationMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import type { CallOptions, Interceptor, Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport, Http2SessionManager } from "@connectrpc/connect-node";

import { ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { type Coupon, CouponService } from "./gen/stampede/coupon/v1/coupon_pb.js";
import { type Event, EventService, EventState } from "./gen/stampede/event/v1/event_pb.js";
import { InventoryService } from "./gen/stampede/inventory/v1/inventory_pb.js";
import { GoodsKind, type Order, OrderService, OrderState } from "./gen/stampede/order/v1/order_pb.js";
import { DeclineCode } from "./gen/stampede/type/v1/decline_pb.js";

/** The domain of every reason that Stampede gives. */
const DOMAIN = "stampede.sale";
/** How long one try of a call may take. */
const CALL_TIMEOUT_MS = 5_000;
/** How long the story waits for anything: a stream, or a call that is repeated. */
const PATIENCE_MS = 30_000;
/** Bounds of the wait before a repeat. It doubles with each try, and is cut by chance to between half and the whole. */
const LEAST_BACKOFF_MS = 100;
const MOST_BACKOFF_MS = 2_000;
/** Holds a page of the largest events. What is longer is refused rather than read. */
const LARGEST_MESSAGE_BYTES = 24 * 1024 * 1024;

// How to call.

/** Clients of one caller. All callers of a process share one connection. */
function clientsFor(url: string, connection: Http2SessionManager, token: string) {
  const options = {
    baseUrl: url,
    httpVersion: "2" as const,
    sessionManager: connection,
    interceptors: [bearer(token)],
    readMaxBytes: LARGEST_MESSAGE_BYTES,
  };
  // Connect for unary calls; the gateway speaks it for these alone. Streams go by gRPC-Web, which, unlike gRPC, works
  // over HTTP/1.1 and in browsers too.
  const transport: Transport = {
    unary: createConnectTransport({ ...options, defaultTimeoutMs: CALL_TIMEOUT_MS }).unary,
    stream: createGrpcWebTransport({ ...options, defaultTimeoutMs: PATIENCE_MS }).stream,
  };
  return {
    coupons: createClient(CouponService, transport),
    events: createClient(EventService, transport),
    orders: createClient(OrderService, transport),
    stock: createClient(InventoryService, transport),
  };
}
type Clients = ReturnType<typeof clientsFor>;

function bearer(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}

/**
 * Calls, and repeats what may succeed by itself. That is safe for every method: a write carries a request_id, and a
 * repeat of the same one has no second effect.
 */
async function call<T>(once: () => Promise<T>): Promise<T> {
  const end = Date.now() + PATIENCE_MS;
  for (let tries = 1; ; tries++) {
    try {
      return await once();
    } catch (error) {
      await waitToRepeat(error, tries, end);
    }
  }
}

/** Waits until the next try is due; throws the error if there must be none. */
async function waitToRepeat(error: unknown, tries: number, end: number): Promise<void> {
  const failure = ConnectError.from(error);
  const [retryInfo] = failure.findDetails(RetryInfoSchema);
  // In Node a connection that breaks is ABORTED or CANCELED, without the details that an error of Stampede has.
  const isOwn = failure.findDetails(ErrorInfoSchema).length > 0;
  const broke = !isOwn && (failure.code === Code.Aborted || failure.code === Code.Canceled);
  // After DEADLINE_EXCEEDED what was asked for may be done, and only its answer be lost: the repeat tells.
  const mayHelp = broke || failure.code === Code.Unavailable || failure.code === Code.DeadlineExceeded;
  if (retryInfo === undefined && !mayHelp) throw error;
  const least = retryInfo?.retryDelay === undefined ? 0 : durationMs(retryInfo.retryDelay);
  const backoff = Math.min(MOST_BACKOFF_MS, LEAST_BACKOFF_MS * 2 ** (tries - 1));
  const wait = least + backoff * (0.5 + Math.random() / 2);
  if (Date.now() + wait > end) throw error;
  await sleep(wait);
}

/**
 * Reads a stream until a message is the one that is waited for, and cancels it. Opens a stream that broke again: each
 * begins with the present state, so nothing is missed.
 */
async function watch<T>(
  open: (options: CallOptions) => AsyncIterable<T>,
  isAwaited: (message: T) => boolean,
): Promise<T> {
  const end = Date.now() + PATIENCE_MS;
  for (let tries = 1; ; tries++) {
    const stop = new AbortController();
    let found: T | undefined;
    let failure: unknown = new Error("the stream ended before the state that was waited for");
    try {
      for await (const message of open({ signal: stop.signal, timeoutMs: Math.max(1, end - Date.now()) })) {
        tries = 1;
        if (!isAwaited(message)) continue;
        found ??= message;
        // Read on to the end that this brings: a loop that is left early would not give up its timer.
        stop.abort();
      }
    } catch (error) {
      failure = error;
    }
    if (found !== undefined) return found;
    await waitToRepeat(failure, tries, end);
  }
}

/** The reason and the metadata of a refusal. Match on the reason, never on the text, which is for people. */
function refusal(error: unknown): { reason: string; metadata: Record<string, string> } {
  const info = ConnectError.from(error).findDetails(ErrorInfoSchema).find((info) => info.domain === DOMAIN);
  if (info === undefined) throw error;
  return { reason: info.reason, metadata: info.metadata };
}

/** A new anonymous buyer's access token, and their id. */
async function logIn(url: string): Promise<{ access_token: string; user_id: string }> {
  const signal = AbortSignal.timeout(CALL_TIMEOUT_MS);
  const response = await fetch(`${url}/v1/auth/tokens`, { method: "POST", signal });
  if (!response.ok) throw new Error(`no token: ${await response.text()}`);
  return (await response.json()) as { access_token: string; user_id: string };
}

// The steps. Each request has a request_id of its own, made once and kept for all repeats.

/** Creates an event that opens in three seconds, with two items. */
async function createEvent(operator: Clients): Promise<Event> {
  const request = {
    requestId: randomUUID(),
    name: "A story in TypeScript",
    openTime: timestampFromMs(Date.now() + 3_000),
    closeTime: timestampFromMs(Date.now() + 3_600_000),
    items: [
      { title: "Lantern", unitPrice: eur(1999n), totalUnits: 10, limitPerBuyer: 2 },
      {
        title: "Tent",
        unitPrice: eur(4500n),
        totalUnits: 5,
        limitPerBuyer: 1,
        gift: { title: "Pegs", totalUnits: 2 },
      },
    ],
  };
  const { event } = await call(() => operator.events.createEvent(request));
  assert(event);
  return event;
}

/** Waits until the inventory has heard of an event, which takes a moment. */
async function waitForStock(operator: Clients, eventId: string): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      await call(() => operator.stock.getStock({ eventId }));
      return;
    } catch (error) {
      if (refusal(error).reason !== "EVENT_NOT_FOUND" || Date.now() > end) throw error;
    }
    await pause();
  }
}

/** Creates a campaign of coupons for the event, which can be claimed at once. Returns its id. */
async function createCampaign(operator: Clients, eventId: string): Promise<string> {
  const request = {
    requestId: randomUUID(),
    name: "Five euros off",
    quota: 3,
    discount: eur(500n),
    eventId,
    openTime: timestampFromMs(Date.now() - 1_000),
    closeTime: timestampFromMs(Date.now() + 3_600_000),
  };
  const { campaign } = await call(() => operator.coupons.createCampaign(request));
  assert(campaign);
  return campaign.campaignId;
}

/** Waits on a stream until the event is open. */
async function waitForOpening(buyer: Clients, eventId: string): Promise<void> {
  await watch(
    (options) => buyer.events.watchEvents({ eventIds: [eventId] }, options),
    ({ event }) => event?.state === EventState.OPEN,
  );
}

/** Claims a coupon. Whoever has one of the campaign already gets that. */
async function claim(buyer: Clients, campaignId: string): Promise<Coupon> {
  const request = { campaignId, requestId: randomUUID() };
  try {
    const { coupon } = await call(() => buyer.coupons.claimCoupon(request));
    assert(coupon);
    return coupon;
  } catch (error) {
    const { reason, metadata } = refusal(error);
    const couponId = metadata["coupon_id"];
    if (reason !== "ALREADY_CLAIMED" || couponId === undefined) throw error;
    say(`refused as ${reason}, which names ${couponId}`);
    const { coupon } = await call(() => buyer.coupons.getCoupon({ couponId }));
    assert(coupon);
    return coupon;
  }
}

/** Orders so many units of each item, and checks what the buyer pays. */
async function placeOrder(buyer: Clients, event: Event, units: number[], couponId: string): Promise<Order> {
  const lines = event.items.map(({ itemId }, index) => ({ itemId, units: units[index] ?? 0 }));
  const request = { requestId: randomUUID(), eventId: event.eventId, lines, couponId };
  const { order } = await call(() => buyer.orders.placeOrder(request));
  assert(order);
  assert.equal(order.state, OrderState.AWAITING_PAYMENT);
  const amounts = [order.subtotal, order.discount, order.total].map((money) => money?.minorUnits);
  assert.deepEqual(amounts, [2n * 1999n + 4500n, 500n, 2n * 1999n + 4500n - 500n]);
  return order;
}

/** Pays, and watches the order until it is known what came of it. */
async function pay(buyer: Clients, orderId: string, paymentMethod: string): Promise<Order> {
  const request = { orderId, requestId: randomUUID(), paymentMethod };
  const { order: paying } = await call(() => buyer.orders.payOrder(request));
  assert(paying);
  const underWay = [OrderState.PAYING, OrderState.PAID];
  const { order } = await watch(
    (options) => buyer.orders.watchOrder({ orderId }, options),
    ({ order }) => order !== undefined && order.version >= paying.version && !underWay.includes(order.state),
  );
  assert(order);
  return order;
}

/** Checks what the buyer has got. */
function checkGoods(order: Order, event: Event): void {
  const [lantern, tent] = event.items.map((item) => item.itemId);
  const granted = order.goods.map(({ itemId, kind, units }) => `${itemId} ${GoodsKind[kind]} ${units}`);
  assert.deepEqual(granted.sort(), [`${lantern} ITEM 2`, `${tent} ITEM 1`, `${tent} GIFT 1`].sort());
}

/** Checks what the ledger has, and what is left. The view of the stock follows the ledger in a moment. */
async function checkStock(buyer: Clients, event: Event): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const { stocks } = await call(() => buyer.stock.getStock({ eventId: event.eventId }));
    const found = event.items.map(({ itemId }) => {
      const stock = stocks.find((stock) => stock.itemId === itemId);
      return [stock?.committedUnits, stock?.leftUnits, stock?.leftGiftUnits];
    });
    const right = [
      [2, 8, 0],
      [1, 4, 1],
    ];
    if (isDeepStrictEqual(found, right)) return;
    if (Date.now() > end) assert.deepEqual(found, right, "the ledger has what was bought, and the rest is left");
    await pause();
  }
}

async function tell(url: string, operatorToken: string, connection: Http2SessionManager): Promise<void> {
  const operator = clientsFor(url, connection, operatorToken);
  const event = await createEvent(operator);
  await waitForStock(operator, event.eventId);
  const campaignId = await createCampaign(operator, event.eventId);
  say(`created ${event.eventId} and ${campaignId}`);

  const { access_token: token, user_id: userId } = await logIn(url);
  const buyer = clientsFor(url, connection, token);
  say(`logged in as ${userId}`);
  await waitForOpening(buyer, event.eventId);
  say("the event is open");

  const coupon = await claim(buyer, campaignId);
  say(`claimed ${coupon.couponId}, rank ${coupon.rank}`);
  const again = await claim(buyer, campaignId);
  assert.equal(again.couponId, coupon.couponId, "there is one coupon for each buyer");

  const { orderId, total } = await placeOrder(buyer, event, [2, 1], coupon.couponId);
  say(`ordered ${orderId}, ${Number(total?.minorUnits) / 100} ${total?.currency}`);
  const declined = await pay(buyer, orderId, "pm_card_declined");
  assert.equal(declined.state, OrderState.AWAITING_PAYMENT);
  assert.equal(declined.lastDecline, DeclineCode.CARD_DECLINED);
  say(`the first card was declined: ${DeclineCode[declined.lastDecline]}`);

  const paid = await pay(buyer, orderId, "pm_card_ok");
  assert.equal(paid.state, OrderState.FULFILLED);
  checkGoods(paid, event);
  say("the second card was charged, and the goods are granted");
  await checkStock(buyer, event);
  say("the ledger has what was bought");
}

async function pause(): Promise<void> {
  await sleep(100 + Math.random() * 200);
}

function eur(minorUnits: bigint) {
  return { minorUnits, currency: "EUR" };
}

function say(line: string): void {
  console.log(`  ${line}`);
}

function environment(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`set ${name}`);
  return value;
}

const url = environment("STAMPEDE_URL").replace(/\/$/, "");
// Pings while calls are open, so that a dead connection is noticed and proxies on the way keep a quiet stream.
const connection = new Http2SessionManager(url, {
  pingIntervalMs: 30_000,
  pingTimeoutMs: 10_000,
});
try {
  await tell(url, environment("STAMPEDE_OPERATOR_TOKEN"), connection);
} finally {
  connection.abort();
}
