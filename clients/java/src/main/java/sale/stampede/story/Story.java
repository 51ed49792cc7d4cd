package sale.stampede.story;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.Struct;
import com.google.protobuf.Timestamp;
import com.google.protobuf.util.Durations;
import com.google.protobuf.util.JsonFormat;
import com.google.protobuf.util.Timestamps;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Iterator;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import sale.stampede.coupon.v1.ClaimCouponRequest;
import sale.stampede.coupon.v1.Coupon;
import sale.stampede.coupon.v1.CouponServiceGrpc;
import sale.stampede.coupon.v1.CouponServiceGrpc.CouponServiceBlockingStub;
import sale.stampede.coupon.v1.CreateCampaignRequest;
import sale.stampede.coupon.v1.GetCouponRequest;
import sale.stampede.event.v1.CreateEventRequest;
import sale.stampede.event.v1.Event;
import sale.stampede.event.v1.EventServiceGrpc;
import sale.stampede.event.v1.EventServiceGrpc.EventServiceBlockingStub;
import sale.stampede.event.v1.EventState;
import sale.stampede.event.v1.Gift;
import sale.stampede.event.v1.NewItem;
import sale.stampede.event.v1.WatchEventsRequest;
import sale.stampede.inventory.v1.GetStockRequest;
import sale.stampede.inventory.v1.InventoryServiceGrpc;
import sale.stampede.inventory.v1.InventoryServiceGrpc.InventoryServiceBlockingStub;
import sale.stampede.order.v1.GoodsKind;
import sale.stampede.order.v1.NewOrderLine;
import sale.stampede.order.v1.Order;
import sale.stampede.order.v1.OrderServiceGrpc;
import sale.stampede.order.v1.OrderServiceGrpc.OrderServiceBlockingStub;
import sale.stampede.order.v1.OrderState;
import sale.stampede.order.v1.PayOrderRequest;
import sale.stampede.order.v1.PlaceOrderRequest;
import sale.stampede.order.v1.WatchOrderRequest;
import sale.stampede.type.v1.DeclineCode;
import sale.stampede.type.v1.Money;

/**
 * One purchase from beginning to end, over gRPC through the gateway.
 *
 * <p>An operator creates an event and a campaign. A buyer logs in, waits for the opening on a stream, claims a coupon,
 * orders two lines with it, pays with a card that is declined and then with one that works, and watches the order until
 * it is fulfilled. What came of it is checked at each step; the first check that does not hold ends the story with exit
 * code 1.
 *
 * <p>Reads STAMPEDE_URL, such as http://127.0.0.1:8080, and STAMPEDE_OPERATOR_TOKEN.
 */
public final class Story {
    /** The domain of every reason that Stampede gives. */
    private static final String DOMAIN = "stampede.sale";
    /** How long one try of a call may take. */
    private static final long CALL_MS = 5_000;
    /** How long the story waits for anything: a stream, or a call that is repeated. */
    private static final long PATIENCE_MS = 30_000;
    /** Bounds of the wait before a repeat. It doubles each time, and is cut by chance to between half and the whole. */
    private static final long LEAST_BACKOFF_MS = 100;
    private static final long MOST_BACKOFF_MS = 2_000;

    private Story() {}

    /** Tells the story. */
    public static void main(String[] arguments) throws Exception {
        URI url = URI.create(environment("STAMPEDE_URL"));
        String operatorToken = environment("STAMPEDE_OPERATOR_TOKEN");
        ManagedChannel channel = channelTo(url);
        try {
            tell(url, Clients.of(channel, operatorToken), channel);
        } finally {
            channel.shutdownNow().awaitTermination(CALL_MS, TimeUnit.MILLISECONDS);
        }
    }

    private static void tell(URI url, Clients operator, ManagedChannel channel) throws Exception {
        Event event = createEvent(operator);
        waitForStock(operator, event.getEventId());
        String campaignId = createCampaign(operator, event.getEventId());
        say("created " + event.getEventId() + " and " + campaignId);

        Login login = logIn(url);
        Clients buyer = Clients.of(channel, login.accessToken());
        say("logged in as " + login.userId());
        waitForOpening(buyer, event.getEventId());
        say("the event is open");

        Coupon coupon = claim(buyer, campaignId);
        say("claimed " + coupon.getCouponId() + ", rank " + coupon.getRank());
        check(claim(buyer, campaignId).getCouponId().equals(coupon.getCouponId()), "one coupon for each buyer");

        Order order = placeOrder(buyer, event, List.of(2, 1), coupon.getCouponId());
        checkOrder(order);
        Money total = order.getTotal();
        say("ordered %s, %.2f %s".formatted(order.getOrderId(), total.getMinorUnits() / 100.0, total.getCurrency()));

        Order declined = pay(buyer, order.getOrderId(), "pm_card_declined");
        check(declined.getState() == OrderState.ORDER_STATE_AWAITING_PAYMENT, "a declined order can be paid again");
        check(declined.getLastDecline() == DeclineCode.DECLINE_CODE_CARD_DECLINED, "it says why it was declined");
        say("the first card was declined");

        Order paid = pay(buyer, order.getOrderId(), "pm_card_ok");
        check(paid.getState() == OrderState.ORDER_STATE_FULFILLED, "a paid order is fulfilled");
        checkGoods(paid, event);
        say("the second card was charged, and the goods are granted");
        checkStock(buyer, event);
        say("the ledger has what was bought");
    }

    // How to call.

    /** Opens a channel, which is shared by all calls: in plaintext for http, over TLS for https. */
    private static ManagedChannel channelTo(URI url) {
        boolean isPlaintext = "http".equals(url.getScheme());
        int port = url.getPort() > 0 ? url.getPort() : isPlaintext ? 80 : 443;
        ManagedChannelBuilder<?> builder = ManagedChannelBuilder.forAddress(url.getHost(), port)
                // Calls are repeated in one place, which is here.
                .disableServiceConfigLookUp()
                // Notices a connection that is dead and was never closed while a call or a stream waits on it.
                .keepAliveTime(30, TimeUnit.SECONDS)
                .keepAliveTimeout(10, TimeUnit.SECONDS)
                // A page of the largest events is longer than what gRPC takes by itself.
                .maxInboundMessageSize(24 << 20);
        return (isPlaintext ? builder.usePlaintext() : builder.useTransportSecurity()).build();
    }

    /** The services, called with the token of one caller. */
    private record Clients(
            EventServiceBlockingStub events,
            CouponServiceBlockingStub coupons,
            InventoryServiceBlockingStub stock,
            OrderServiceBlockingStub orders) {

        static Clients of(ManagedChannel channel, String token) {
            Metadata metadata = new Metadata();
            metadata.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
            var bearer = MetadataUtils.newAttachHeadersInterceptor(metadata);
            // Calls wait for the connection within their deadlines.
            return new Clients(
                    EventServiceGrpc.newBlockingStub(channel).withInterceptors(bearer).withWaitForReady(),
                    CouponServiceGrpc.newBlockingStub(channel).withInterceptors(bearer).withWaitForReady(),
                    InventoryServiceGrpc.newBlockingStub(channel).withInterceptors(bearer).withWaitForReady(),
                    OrderServiceGrpc.newBlockingStub(channel).withInterceptors(bearer).withWaitForReady());
        }
    }

    /**
     * Calls, and repeats the same request where that may help. That is safe for every method: a write carries a
     * request_id, and a repeat of the same one has no second effect.
     */
    private static <S extends AbstractStub<S>, T> T call(S stub, Function<S, T> method) throws InterruptedException {
        Deadline end = Deadline.after(PATIENCE_MS, TimeUnit.MILLISECONDS);
        for (int tries = 1; ; tries++) {
            try {
                return method.apply(stub.withDeadlineAfter(CALL_MS, TimeUnit.MILLISECONDS));
            } catch (StatusRuntimeException error) {
                waitToRepeat(error, tries, end);
            }
        }
    }

    /** Waits until the next try is due; throws the error if there must be none. */
    private static void waitToRepeat(StatusRuntimeException error, int tries, Deadline end)
            throws InterruptedException {
        Optional<RetryInfo> retryInfo = detail(error, RetryInfo.class);
        Status.Code code = error.getStatus().getCode();
        // After DEADLINE_EXCEEDED what was asked for may be done, and only its answer be lost: the repeat tells.
        boolean mayHelp = code == Status.Code.UNAVAILABLE || code == Status.Code.DEADLINE_EXCEEDED;
        if (retryInfo.isEmpty() && !mayHelp) {
            throw error;
        }
        long least = retryInfo.map(info -> Durations.toMillis(info.getRetryDelay())).orElse(0L);
        long backoff = Math.min(MOST_BACKOFF_MS, LEAST_BACKOFF_MS << Math.min(tries - 1, 10));
        long wait = least + ThreadLocalRandom.current().nextLong(backoff / 2, backoff + 1);
        if (wait > end.timeRemaining(TimeUnit.MILLISECONDS)) {
            throw error;
        }
        Thread.sleep(wait);
    }

    /**
     * Reads a stream until a message is the one that is waited for, and cancels it. Opens a stream that broke again:
     * each begins with the present state, so nothing is missed.
     */
    private static <S extends AbstractStub<S>, T> T watch(
            S stub, Function<S, Iterator<T>> method, Predicate<T> isAwaited) throws Exception {
        Deadline end = Deadline.after(PATIENCE_MS, TimeUnit.MILLISECONDS);
        for (int tries = 1; ; tries++) {
            // The stream lives in this context, and is cancelled with it.
            Context.CancellableContext context = Context.current().withCancellation();
            try {
                Iterator<T> messages = context.call(() -> method.apply(stub.withDeadline(end)));
                while (messages.hasNext()) {
                    T message = messages.next();
                    if (isAwaited.test(message)) {
                        return message;
                    }
                    tries = 1;
                }
                throw new IllegalStateException("the stream ended before the state that was waited for");
            } catch (StatusRuntimeException error) {
                waitToRepeat(error, tries, end);
            } finally {
                context.cancel(null);
            }
        }
    }

    /** The reason and the metadata of a refusal. Match on the reason, never on the text, which is for people. */
    private static ErrorInfo refusal(StatusRuntimeException error) {
        return detail(error, ErrorInfo.class)
                .filter(info -> info.getDomain().equals(DOMAIN))
                .orElseThrow(() -> error);
    }

    /** The detail of this type that an error carries, if it does. */
    private static <T extends Message> Optional<T> detail(StatusRuntimeException error, Class<T> type) {
        com.google.rpc.Status status = StatusProto.fromThrowable(error);
        try {
            for (Any detail : status.getDetailsList()) {
                if (detail.is(type)) {
                    return Optional.of(detail.unpack(type));
                }
            }
        } catch (InvalidProtocolBufferException unreadable) {
            error.addSuppressed(unreadable);
        }
        return Optional.empty();
    }

    /** A new anonymous buyer. */
    private record Login(String userId, String accessToken) {}

    private static Login logIn(URI url) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(url.resolve("/v1/auth/tokens"))
                .version(HttpClient.Version.HTTP_1_1)
                .timeout(java.time.Duration.ofMillis(CALL_MS))
                .POST(HttpRequest.BodyPublishers.noBody())
                .build();
        HttpResponse<String> response =
                HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        check(response.statusCode() / 100 == 2, "a token for everybody, not " + response.body());
        Struct.Builder tokens = Struct.newBuilder();
        JsonFormat.parser().merge(response.body(), tokens);
        return new Login(
                tokens.getFieldsOrThrow("user_id").getStringValue(),
                tokens.getFieldsOrThrow("access_token").getStringValue());
    }

    // The steps. Each request has a request_id of its own, made once and kept for all repeats.

    /** Creates an event that opens in three seconds, with two items. */
    private static Event createEvent(Clients operator) throws InterruptedException {
        CreateEventRequest request = CreateEventRequest.newBuilder()
                .setRequestId(newId())
                .setName("A story in Java")
                .setOpenTime(inSeconds(3))
                .setCloseTime(inSeconds(3_600))
                .addItems(NewItem.newBuilder()
                        .setTitle("Lantern")
                        .setUnitPrice(eur(1999))
                        .setTotalUnits(10)
                        .setLimitPerBuyer(2))
                .addItems(NewItem.newBuilder()
                        .setTitle("Tent")
                        .setUnitPrice(eur(4500))
                        .setTotalUnits(5)
                        .setLimitPerBuyer(1)
                        .setGift(Gift.newBuilder().setTitle("Pegs").setTotalUnits(2)))
                .build();
        return call(operator.events(), events -> events.createEvent(request)).getEvent();
    }

    /** Waits until the inventory has heard of an event, which takes a moment. */
    private static void waitForStock(Clients operator, String eventId) throws InterruptedException {
        Deadline end = Deadline.after(PATIENCE_MS, TimeUnit.MILLISECONDS);
        GetStockRequest request = GetStockRequest.newBuilder().setEventId(eventId).build();
        while (true) {
            try {
                call(operator.stock(), stock -> stock.getStock(request));
                return;
            } catch (StatusRuntimeException error) {
                if (!refusal(error).getReason().equals("EVENT_NOT_FOUND") || end.isExpired()) {
                    throw error;
                }
            }
            pause();
        }
    }

    /** Creates a campaign of coupons for the event, which can be claimed at once. Returns its id. */
    private static String createCampaign(Clients operator, String eventId) throws InterruptedException {
        CreateCampaignRequest request = CreateCampaignRequest.newBuilder()
                .setRequestId(newId())
                .setName("Five euros off")
                .setQuota(3)
                .setDiscount(eur(500))
                .setEventId(eventId)
                .setOpenTime(inSeconds(-1))
                .setCloseTime(inSeconds(3_600))
                .build();
        return call(operator.coupons(), coupons -> coupons.createCampaign(request)).getCampaign().getCampaignId();
    }

    /** Waits on a stream until the event is open. */
    private static void waitForOpening(Clients buyer, String eventId) throws Exception {
        WatchEventsRequest request = WatchEventsRequest.newBuilder().addEventIds(eventId).build();
        watch(
                buyer.events(),
                events -> events.watchEvents(request),
                message -> message.getEvent().getState() == EventState.EVENT_STATE_OPEN);
    }

    /** Claims a coupon. Whoever has one of the campaign already gets that. */
    private static Coupon claim(Clients buyer, String campaignId) throws InterruptedException {
        ClaimCouponRequest request = ClaimCouponRequest.newBuilder()
                .setCampaignId(campaignId)
                .setRequestId(newId())
                .build();
        try {
            return call(buyer.coupons(), coupons -> coupons.claimCoupon(request)).getCoupon();
        } catch (StatusRuntimeException error) {
            ErrorInfo refusal = refusal(error);
            if (!refusal.getReason().equals("ALREADY_CLAIMED")) {
                throw error;
            }
            String couponId = refusal.getMetadataOrThrow("coupon_id");
            say("refused as " + refusal.getReason() + ", which names " + couponId);
            GetCouponRequest get = GetCouponRequest.newBuilder().setCouponId(couponId).build();
            return call(buyer.coupons(), coupons -> coupons.getCoupon(get)).getCoupon();
        }
    }

    /** Orders so many units of each item. */
    private static Order placeOrder(Clients buyer, Event event, List<Integer> units, String couponId)
            throws InterruptedException {
        PlaceOrderRequest.Builder request = PlaceOrderRequest.newBuilder()
                .setRequestId(newId())
                .setEventId(event.getEventId())
                .setCouponId(couponId);
        for (int line = 0; line < units.size(); line++) {
            String itemId = event.getItems(line).getItemId();
            request.addLines(NewOrderLine.newBuilder().setItemId(itemId).setUnits(units.get(line)));
        }
        PlaceOrderRequest placed = request.build();
        return call(buyer.orders(), orders -> orders.placeOrder(placed)).getOrder();
    }

    /** Pays, and watches the order until it is known what came of it. */
    private static Order pay(Clients buyer, String orderId, String card) throws Exception {
        PayOrderRequest request = PayOrderRequest.newBuilder()
                .setOrderId(orderId)
                .setRequestId(newId())
                .setPaymentMethod(card)
                .build();
        Order paying = call(buyer.orders(), orders -> orders.payOrder(request)).getOrder();
        Set<OrderState> underWay = Set.of(OrderState.ORDER_STATE_PAYING, OrderState.ORDER_STATE_PAID);
        WatchOrderRequest toWatch = WatchOrderRequest.newBuilder().setOrderId(orderId).build();
        return watch(buyer.orders(), orders -> orders.watchOrder(toWatch), message -> {
                    Order order = message.getOrder();
                    return order.getVersion() >= paying.getVersion() && !underWay.contains(order.getState());
                })
                .getOrder();
    }

    /** Checks what the buyer pays. */
    private static void checkOrder(Order order) {
        check(order.getState() == OrderState.ORDER_STATE_AWAITING_PAYMENT, "the order waits for its payment");
        check(order.getSubtotal().equals(eur(2 * 1999 + 4500)), "the sum of the lines is right");
        check(order.getDiscount().equals(eur(500)), "the discount is that of the coupon");
        check(order.getTotal().equals(eur(2 * 1999 + 4500 - 500)), "the total is right");
    }

    private record Granted(String itemId, GoodsKind kind, int units) {}

    /** Checks what the buyer has got. */
    private static void checkGoods(Order order, Event event) {
        String lantern = event.getItems(0).getItemId();
        String tent = event.getItems(1).getItemId();
        Set<Granted> granted = order.getGoodsList().stream()
                .map(goods -> new Granted(goods.getItemId(), goods.getKind(), goods.getUnits()))
                .collect(Collectors.toSet());
        Set<Granted> bought = Set.of(
                new Granted(lantern, GoodsKind.GOODS_KIND_ITEM, 2),
                new Granted(tent, GoodsKind.GOODS_KIND_ITEM, 1),
                new Granted(tent, GoodsKind.GOODS_KIND_GIFT, 1));
        check(granted.equals(bought), "the goods are what was bought, not " + granted);
    }

    private record Remaining(String itemId, int committedUnits, int leftUnits, int leftGiftUnits) {}

    /** Checks what the ledger has, and what is left. The view of the stock follows the ledger in a moment. */
    private static void checkStock(Clients buyer, Event event) throws InterruptedException {
        Deadline end = Deadline.after(PATIENCE_MS, TimeUnit.MILLISECONDS);
        GetStockRequest request = GetStockRequest.newBuilder().setEventId(event.getEventId()).build();
        Set<Remaining> right = Set.of(
                new Remaining(event.getItems(0).getItemId(), 2, 8, 0),
                new Remaining(event.getItems(1).getItemId(), 1, 4, 1));
        while (true) {
            Set<Remaining> found = call(buyer.stock(), stock -> stock.getStock(request)).getStocksList().stream()
                    .map(stock -> new Remaining(
                            stock.getItemId(),
                            stock.getCommittedUnits(),
                            stock.getLeftUnits(),
                            stock.getLeftGiftUnits()))
                    .collect(Collectors.toSet());
            if (found.equals(right)) {
                return;
            }
            check(!end.isExpired(), "the ledger has what was bought, and the rest is left, not " + found);
            pause();
        }
    }

    // Small things.

    private static String newId() {
        return UUID.randomUUID().toString();
    }

    /** An amount: 1999 is 19.99 EUR. */
    private static Money eur(long minorUnits) {
        return Money.newBuilder().setMinorUnits(minorUnits).setCurrency("EUR").build();
    }

    private static Timestamp inSeconds(long seconds) {
        return Timestamps.fromMillis(System.currentTimeMillis() + seconds * 1_000);
    }

    private static void pause() throws InterruptedException {
        Thread.sleep(ThreadLocalRandom.current().nextLong(100, 300));
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new IllegalStateException("not so: " + what);
        }
    }

    private static void say(String line) {
        System.out.println("  " + line);
    }

    private static String environment(String name) {
        String value = System.getenv(name);
        check(value != null && !value.isEmpty(), name + " is set");
        return value;
    }
}
