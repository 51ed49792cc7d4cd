// Command story tells one purchase from beginning to end, over gRPC through the gateway.
//
// An operator creates an event and a campaign. A buyer logs in, waits for the opening on a stream, claims a coupon,
// orders two lines with it, pays with a card that is declined and then with one that works, and watches the order until
// it is fulfilled. What came of it is checked at each step; the first check that does not hold ends the story with exit
// code 1.
//
// It reads STAMPEDE_URL, such as http://127.0.0.1:8080, and STAMPEDE_OPERATOR_TOKEN.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	couponv1 "stampede.sale/go/stampede/coupon/v1"
	eventv1 "stampede.sale/go/stampede/event/v1"
	inventoryv1 "stampede.sale/go/stampede/inventory/v1"
	orderv1 "stampede.sale/go/stampede/order/v1"
	typev1 "stampede.sale/go/stampede/type/v1"
)

const (
	// domain is the one of every reason that Stampede gives.
	domain = "stampede.sale"
	// callTimeout is for one try of a call.
	callTimeout = 5 * time.Second
	// patience is for a stream, or for calls that are repeated.
	patience = 30 * time.Second
	// leastBackoff is before the second try, where the server does not say when to come again. It doubles with each.
	leastBackoff = 100 * time.Millisecond
	mostBackoff  = 2 * time.Second
)

// connect opens a connection, which is shared by all calls: in plaintext for http, over TLS for https.
func connect(gateway *url.URL) (*grpc.ClientConn, error) {
	security, port := insecure.NewCredentials(), "80"
	if gateway.Scheme == "https" {
		security, port = credentials.NewTLS(nil), "443"
	}
	return grpc.NewClient(
		"dns:///"+gateway.Hostname()+":"+cmp.Or(gateway.Port(), port),
		grpc.WithTransportCredentials(security),
		// Calls are repeated in one place, which is here.
		grpc.WithDisableServiceConfig(),
		// Notices a connection that is dead and was never closed while a call or a stream waits on it.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		// A page of the largest events is longer than what gRPC takes by itself.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(24<<20)),
	)
}

// bearer sends a token with a call. It goes over plaintext too: put TLS in front of a gateway that others can reach.
type bearer string

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

// refusal is what a failed call says: match on the reason, never on the text.
type refusal struct {
	code     codes.Code
	reason   string
	metadata map[string]string
	// retryAfter is how long to wait before a repeat; nil where a repeat gets the same answer.
	retryAfter *time.Duration
}

// refusalOf reads the details of an error: google.rpc.ErrorInfo and RetryInfo.
func refusalOf(err error) refusal {
	answer := status.Convert(err)
	said := refusal{code: answer.Code()}
	for _, detail := range answer.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == domain {
				said.reason, said.metadata = detail.GetReason(), detail.GetMetadata()
			}
		case *errdetails.RetryInfo:
			delay := detail.GetRetryDelay().AsDuration()
			said.retryAfter = &delay
		}
	}
	return said
}

// method is one of a generated client.
type method[Request, Response any] func(context.Context, *Request, ...grpc.CallOption) (*Response, error)

// call calls a method. It repeats the same request where that may help, for as long as patience lasts. That is safe for
// every method: those that write carry a request_id, and a repeat of a request_id has no second effect.
func call[Request, Response any](
	ctx context.Context, method method[Request, Response], request *Request, options ...grpc.CallOption,
) (*Response, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for tries := 1; ; tries++ {
		one, done := context.WithTimeout(ctx, callTimeout)
		response, err := method(one, request, options...)
		done()
		if err == nil {
			return response, nil
		}
		said := refusalOf(err)
		// Nobody had the call; or its answer is lost, and what was asked for may be done.
		mayHelp := said.code == codes.Unavailable || said.code == codes.DeadlineExceeded
		if said.retryAfter == nil && mayHelp {
			backoff := min(leastBackoff<<min(tries-1, 10), mostBackoff)
			said.retryAfter = &backoff
		}
		if said.retryAfter == nil || pause(ctx, *said.retryAfter) != nil {
			return nil, err
		}
	}
}

// streaming is a method of a generated client that answers with a stream.
type streaming[Request, Response any] func(
	context.Context, *Request, ...grpc.CallOption,
) (grpc.ServerStreamingClient[Response], error)

// watch reads a stream until what it sends is the right thing. It opens it again where it breaks.
func watch[Request, Response any](
	ctx context.Context, method streaming[Request, Response], request *Request, found func(*Response) bool,
	options ...grpc.CallOption,
) (*Response, error) {
	// Its end ends the stream too.
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		stream, err := method(ctx, request, options...)
		for err == nil {
			var update *Response
			if update, err = stream.Recv(); err == nil && found(update) {
				return update, nil
			}
		}
		if !errors.Is(err, io.EOF) && status.Code(err) != codes.Unavailable {
			return nil, err
		}
		if pause(ctx, 200*time.Millisecond) != nil {
			return nil, fmt.Errorf("the stream never sent what was waited for: %w", err)
		}
	}
}

// pause waits for at least so long, with jitter.
func pause(ctx context.Context, delay time.Duration) error {
	delay = max(delay, 100*time.Millisecond)
	// It fails only without a source of randomness, which ends the program.
	extra, _ := rand.Int(rand.Reader, big.NewInt(int64(delay/2)))
	timer := time.NewTimer(delay + time.Duration(extra.Int64()))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// newID returns a request_id. One is chosen for each thing to be done, and kept for all repeats of it.
func newID() string { return rand.Text() }

func eur(minorUnits int64) *typev1.Money {
	return &typev1.Money{MinorUnits: minorUnits, Currency: "EUR"}
}

func say(format string, values ...any) { fmt.Printf("  "+format+"\n", values...) }

// check fails where something is not as it should be.
func check(holds bool, what string, values ...any) error {
	if holds {
		return nil
	}
	return fmt.Errorf("not so: "+what, values...)
}

// clients are the generated ones, all on one connection.
type clients struct {
	events    eventv1.EventServiceClient
	coupons   couponv1.CouponServiceClient
	inventory inventoryv1.InventoryServiceClient
	orders    orderv1.OrderServiceClient
}

func clientsOn(connection *grpc.ClientConn) clients {
	return clients{
		events:    eventv1.NewEventServiceClient(connection),
		coupons:   couponv1.NewCouponServiceClient(connection),
		inventory: inventoryv1.NewInventoryServiceClient(connection),
		orders:    orderv1.NewOrderServiceClient(connection),
	}
}

// createEvent creates an event that opens in three seconds, with two items, and waits until they are staged.
func (clients clients) createEvent(ctx context.Context, operator grpc.CallOption) (*eventv1.Event, error) {
	now := time.Now()
	created, err := call(ctx, clients.events.CreateEvent, &eventv1.CreateEventRequest{
		RequestId: newID(),
		Name:      "A story in Go",
		OpenTime:  timestamppb.New(now.Add(3 * time.Second)),
		CloseTime: timestamppb.New(now.Add(time.Hour)),
		Items: []*eventv1.NewItem{
			{Title: "Lantern", UnitPrice: eur(1999), TotalUnits: 10, LimitPerBuyer: 2},
			{
				Title: "Tent", UnitPrice: eur(4500), TotalUnits: 5, LimitPerBuyer: 1,
				Gift: &eventv1.Gift{Title: "Pegs", TotalUnits: 2},
			},
		},
	}, operator)
	if err != nil {
		return nil, fmt.Errorf("cannot create the event: %w", err)
	}
	event := created.GetEvent()
	return event, clients.waitForStock(ctx, event.GetEventId())
}

// waitForStock waits until the inventory has heard of an event, which takes a moment.
func (clients clients) waitForStock(ctx context.Context, eventID string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		_, err := clients.stock(ctx, eventID)
		if err == nil {
			return nil
		}
		if refusalOf(err).reason != "EVENT_NOT_FOUND" || pause(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("the event is not staged: %w", err)
		}
	}
}

// stock returns what the ledger has, and what is left.
func (clients clients) stock(ctx context.Context, eventID string) ([]*inventoryv1.Stock, error) {
	request := &inventoryv1.GetStockRequest{EventId: eventID}
	answer, err := call(ctx, clients.inventory.GetStock, request)
	return answer.GetStocks(), err
}

// createCampaign creates a campaign of coupons for the event, which can be claimed at once.
func (clients clients) createCampaign(
	ctx context.Context, eventID string, operator grpc.CallOption,
) (*couponv1.Campaign, error) {
	now := time.Now()
	created, err := call(ctx, clients.coupons.CreateCampaign, &couponv1.CreateCampaignRequest{
		RequestId: newID(),
		Name:      "Five euros off",
		Quota:     3,
		Discount:  eur(500),
		EventId:   eventID,
		OpenTime:  timestamppb.New(now.Add(-time.Second)),
		CloseTime: timestamppb.New(now.Add(time.Hour)),
	}, operator)
	return created.GetCampaign(), err
}

// logIn returns the access token of a new anonymous buyer.
func logIn(ctx context.Context, gateway *url.URL) (bearer, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, gateway.JoinPath("/v1/auth/tokens").String(), nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", fmt.Errorf("cannot log in: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		return "", fmt.Errorf("cannot log in: %s", answer.Status)
	}
	var pair struct {
		UserID      string `json:"user_id"`
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&pair); err != nil {
		return "", fmt.Errorf("cannot read the tokens: %w", err)
	}
	say("logged in as %s", pair.UserID)
	return bearer(pair.AccessToken), nil
}

// waitForOpening waits on a stream until the event is open.
func (clients clients) waitForOpening(ctx context.Context, eventID string) error {
	request := &eventv1.WatchEventsRequest{EventIds: []string{eventID}}
	_, err := watch(ctx, clients.events.WatchEvents, request, func(update *eventv1.WatchEventsResponse) bool {
		return update.GetEvent().GetState() == eventv1.EventState_EVENT_STATE_OPEN
	})
	return err
}

// claim claims a coupon. Whoever has one of the campaign already gets that.
func (clients clients) claim(
	ctx context.Context, campaignID string, buyer grpc.CallOption,
) (*couponv1.Coupon, error) {
	request := &couponv1.ClaimCouponRequest{CampaignId: campaignID, RequestId: newID()}
	claimed, err := call(ctx, clients.coupons.ClaimCoupon, request, buyer)
	if err == nil {
		return claimed.GetCoupon(), nil
	}
	said := refusalOf(err)
	if said.reason != "ALREADY_CLAIMED" {
		return nil, fmt.Errorf("cannot claim a coupon: %w", err)
	}
	say("refused as %s, which names %s", said.reason, said.metadata["coupon_id"])
	had := &couponv1.GetCouponRequest{CouponId: said.metadata["coupon_id"]}
	answer, err := call(ctx, clients.coupons.GetCoupon, had, buyer)
	return answer.GetCoupon(), err
}

// pay pays, and watches the order until it is known what came of it.
func (clients clients) pay(
	ctx context.Context, orderID, card string, buyer grpc.CallOption,
) (*orderv1.Order, error) {
	request := &orderv1.PayOrderRequest{OrderId: orderID, RequestId: newID(), PaymentMethod: card}
	paying, err := call(ctx, clients.orders.PayOrder, request, buyer)
	if err != nil {
		return nil, fmt.Errorf("cannot pay: %w", err)
	}
	isKnown := func(update *orderv1.WatchOrderResponse) bool {
		order := update.GetOrder()
		underWay := order.GetState() == orderv1.OrderState_ORDER_STATE_PAYING ||
			order.GetState() == orderv1.OrderState_ORDER_STATE_PAID
		return order.GetVersion() >= paying.GetOrder().GetVersion() && !underWay
	}
	toWatch := &orderv1.WatchOrderRequest{OrderId: orderID}
	update, err := watch(ctx, clients.orders.WatchOrder, toWatch, isKnown, buyer)
	return update.GetOrder(), err
}

// buy orders two lines with a coupon, and pays at the second attempt.
func (clients clients) buy(
	ctx context.Context, event *eventv1.Event, couponID string, buyer grpc.CallOption,
) error {
	lantern, tent := event.GetItems()[0].GetItemId(), event.GetItems()[1].GetItemId()
	placed, err := call(ctx, clients.orders.PlaceOrder, &orderv1.PlaceOrderRequest{
		RequestId: newID(),
		EventId:   event.GetEventId(),
		Lines:     []*orderv1.NewOrderLine{{ItemId: lantern, Units: 2}, {ItemId: tent, Units: 1}},
		CouponId:  couponID,
	}, buyer)
	if err != nil {
		return fmt.Errorf("cannot order: %w", err)
	}
	order := placed.GetOrder()
	if err := checkTotals(order); err != nil {
		return err
	}
	say("ordered %s, %.2f %s", order.GetOrderId(), float64(order.GetTotal().GetMinorUnits())/100,
		order.GetTotal().GetCurrency())

	declined, err := clients.pay(ctx, order.GetOrderId(), "pm_card_declined", buyer)
	if err != nil {
		return err
	}
	if err := checkDeclined(declined); err != nil {
		return err
	}
	say("the first card was declined")

	paid, err := clients.pay(ctx, order.GetOrderId(), "pm_card_ok", buyer)
	if err != nil {
		return err
	}
	if err := checkGoods(paid, lantern, tent); err != nil {
		return err
	}
	say("the second card was charged, and the goods are granted")
	return nil
}

// checkTotals checks what the buyer pays.
func checkTotals(order *orderv1.Order) error {
	totals := []int64{
		order.GetSubtotal().GetMinorUnits(), order.GetDiscount().GetMinorUnits(), order.GetTotal().GetMinorUnits(),
	}
	wanted := []int64{2*1999 + 4500, 500, 2*1999 + 4500 - 500}
	return check(slices.Equal(totals, wanted), "the totals are %v; they are %v", wanted, totals)
}

// checkDeclined checks that an order whose card was declined can be paid again.
func checkDeclined(order *orderv1.Order) error {
	awaits := order.GetState() == orderv1.OrderState_ORDER_STATE_AWAITING_PAYMENT
	code := strings.ToUpper(fmt.Sprint(order.GetLastDecline()))
	return check(awaits && strings.HasSuffix(code, "CARD_DECLINED"), "it can be paid again, after %q", code)
}

// checkGoods checks what the buyer has got.
func checkGoods(order *orderv1.Order, lantern, tent string) error {
	fulfilled := order.GetState() == orderv1.OrderState_ORDER_STATE_FULFILLED
	if err := check(fulfilled, "a paid order is fulfilled; it is %v", order.GetState()); err != nil {
		return err
	}
	type goods struct {
		itemID string
		kind   orderv1.GoodsKind
		units  int32
	}
	missing := map[goods]bool{
		{lantern, orderv1.GoodsKind_GOODS_KIND_ITEM, 2}: true,
		{tent, orderv1.GoodsKind_GOODS_KIND_ITEM, 1}:    true,
		{tent, orderv1.GoodsKind_GOODS_KIND_GIFT, 1}:    true,
	}
	for _, one := range order.GetGoods() {
		delete(missing, goods{one.GetItemId(), one.GetKind(), one.GetUnits()})
	}
	return check(len(missing) == 0 && len(order.GetGoods()) == 3, "the goods are what was bought; without %v", missing)
}

// checkStock checks what the ledger has left.
func checkStock(stocks []*inventoryv1.Stock) error {
	left := make(map[[3]int32]bool)
	for _, stock := range stocks {
		left[[3]int32{stock.GetCommittedUnits(), stock.GetLeftUnits(), stock.GetLeftGiftUnits()}] = true
	}
	// Of the lanterns and of the tents: units sold, units left, gifts left.
	holds := len(stocks) == 2 && left[[3]int32{2, 8, 0}] && left[[3]int32{1, 4, 1}]
	return check(holds, "the ledger has what was bought, and the rest is left; it is %v", left)
}

// tell tells the story.
func tell(ctx context.Context, gateway *url.URL, operator bearer) error {
	connection, err := connect(gateway)
	if err != nil {
		return err
	}
	defer connection.Close()
	clients, asOperator := clientsOn(connection), grpc.PerRPCCredentials(operator)

	event, err := clients.createEvent(ctx, asOperator)
	if err != nil {
		return err
	}
	campaign, err := clients.createCampaign(ctx, event.GetEventId(), asOperator)
	if err != nil {
		return fmt.Errorf("cannot create the campaign: %w", err)
	}
	say("created %s and %s", event.GetEventId(), campaign.GetCampaignId())

	token, err := logIn(ctx, gateway)
	if err != nil {
		return err
	}
	asBuyer := grpc.PerRPCCredentials(token)
	if err := clients.waitForOpening(ctx, event.GetEventId()); err != nil {
		return err
	}
	say("the event is open")

	coupon, err := clients.claim(ctx, campaign.GetCampaignId(), asBuyer)
	if err != nil {
		return err
	}
	say("claimed %s, rank %d", coupon.GetCouponId(), coupon.GetRank())
	again, err := clients.claim(ctx, campaign.GetCampaignId(), asBuyer)
	if err != nil {
		return err
	}
	if err := check(again.GetCouponId() == coupon.GetCouponId(), "there is one coupon for each buyer"); err != nil {
		return err
	}

	if err := clients.buy(ctx, event, coupon.GetCouponId(), asBuyer); err != nil {
		return err
	}
	stocks, err := clients.stock(ctx, event.GetEventId())
	if err != nil {
		return err
	}
	if err := checkStock(stocks); err != nil {
		return err
	}
	say("the ledger has what was bought")
	return nil
}

func main() {
	gateway, err := url.Parse(cmp.Or(os.Getenv("STAMPEDE_URL"), "http://127.0.0.1:8080"))
	operator := os.Getenv("STAMPEDE_OPERATOR_TOKEN")
	if err == nil && operator == "" {
		err = errors.New("STAMPEDE_OPERATOR_TOKEN is not set")
	}
	if err == nil {
		err = tell(context.Background(), gateway, bearer(operator))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
