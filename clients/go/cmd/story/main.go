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
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	couponv1 "stampede.sale/go/stampede/coupon/v1"
	eventv1 "stampede.sale/go/stampede/event/v1"
	inventoryv1 "stampede.sale/go/stampede/inventory/v1"
	orderv1 "stampede.sale/go/stampede/order/v1"
	typev1 "stampede.sale/go/stampede/type/v1"
)

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
		if refusalOf(err).reason != "EVENT_NOT_FOUND" || pause(ctx, 200*time.Millisecond) != nil {
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
	state, why := order.GetState(), order.GetLastDecline()
	holds := state == orderv1.OrderState_ORDER_STATE_AWAITING_PAYMENT &&
		why == typev1.DeclineCode_DECLINE_CODE_CARD_DECLINED
	return check(holds, "a declined order can be paid again, and says why; it is %v, after %v", state, why)
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
