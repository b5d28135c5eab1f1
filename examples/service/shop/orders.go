package shop

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"

	"github.com/kvrecipes/kv"
)

// Order is what the store keeps under "order:" + ID.
type Order struct {
	ID       string `json:"id"`
	User     string `json:"user"`
	Product  string `json:"product"`
	Cents    int    `json:"cents"`
	Shelf    string `json:"shelf"`
	Checkout string `json:"checkout"` // "new" or "classic"
	Receipt  string `json:"receipt,omitempty"`
	Fence    int64  `json:"fence,omitempty"` // of the lock under which it was paid
	Shipped  bool   `json:"shipped,omitempty"`
}

// createOrder does its work once for each Idempotency-Key of a user, and answers
// every repetition with the first one's response.
func (s *Shop) createOrder(r *http.Request, user string) (kv.Response, error) {
	key := r.Header.Get("Idempotency-Key")
	if key == "" || len(key) > 200 {
		return kv.Response{}, errKey
	}
	body, err := readBody(r)
	if err != nil {
		return kv.Response{}, err
	}
	fingerprint := sha256.Sum256(body)
	work := func(ctx context.Context) (kv.Response, error) { return s.placeOrder(ctx, user, key, body) }

	// A customer who closes the browser has ordered all the same: the work outlives the request.
	resp, replay, err := s.once.Execute(context.WithoutCancel(r.Context()), kv.Key(user, key), hex.EncodeToString(fingerprint[:]), work)
	if err != nil {
		return kv.Response{}, err
	}
	if replay {
		resp.Header["Idempotent-Replayed"] = []string{"true"}
	}
	return resp, nil
}

func (s *Shop) placeOrder(ctx context.Context, user, key string, body []byte) (kv.Response, error) {
	var asked struct{ Product string }
	if err := decode(body, &asked); err != nil {
		return kv.Response{}, err
	}
	product, err := s.lookUp(ctx, asked.Product)
	if errors.Is(err, kv.ErrNotFound) {
		p := problem{http.StatusUnprocessableEntity, "no such product"}
		return p.response(), nil // an answer like any other: repetitions get it, too
	}
	if err != nil {
		return kv.Response{}, err
	}
	shelves, err := s.outside.reserve(ctx, kv.Key(user, key), product.ID)
	if err != nil {
		return kv.Response{}, err
	}
	order := Order{
		ID:       rand.Text(),
		User:     user,
		Product:  product.ID,
		Cents:    product.Cents,
		Shelf:    shelves[0], // the bug that the drive provokes: there may be none
		Checkout: s.checkoutOf(user),
	}
	if _, err := s.orders.SetNX(ctx, order.ID, order, kv.NoExpiry); err != nil {
		return kv.Response{}, err
	}
	resp := answer(http.StatusCreated, order)
	resp.Header["Location"] = []string{"/orders/" + order.ID}
	return resp, nil
}

func (s *Shop) getOrder(r *http.Request, user string) (kv.Response, error) {
	order, err := s.orderOf(r.Context(), user, r.PathValue("id"))
	if err != nil {
		return kv.Response{}, err
	}
	return answer(http.StatusOK, order), nil
}

// orderOf returns an order of this user.
func (s *Shop) orderOf(ctx context.Context, user, id string) (Order, error) {
	order, err := s.orders.Get(ctx, id)
	if err == nil && order.User != user {
		err = kv.ErrNotFound // not theirs to know about
	}
	return order, err
}

// payOrder charges an order once, however many tabs pay it at the same time: one
// works on an order at a time, and finds what the one before has done.
func (s *Shop) payOrder(r *http.Request, user string) (kv.Response, error) {
	id := r.PathValue("id")
	if _, err := s.orderOf(r.Context(), user, id); err != nil { // so that nobody locks what is not theirs
		return kv.Response{}, err
	}
	lock, err := s.locks.Lock(r.Context(), id)
	if err != nil {
		return kv.Response{}, err
	}
	defer lock.Unlock(r.Context()) // an error means that it was lost, and the fence has cared for that

	order, err := s.orderOf(r.Context(), user, id) // as the one before has left it
	if err == nil && order.Receipt == "" {
		order, err = s.charge(lock, order)
	}
	if err != nil {
		return kv.Response{}, err
	}
	return answer(http.StatusOK, order), nil
}

var errOvertaken = &problem{http.StatusConflict, "somebody else is paying this order"}

// charge works with the lock's context, which a client that goes away doesn't
// end, but the loss of the lock does. Against a process that is paused and wakes
// up after its lock has passed on, the fence helps: provider and order refuse a lower one than they have seen.
func (s *Shop) charge(lock *kv.Lock, order Order) (Order, error) {
	ctx := lock.Context()
	receipt, err := s.outside.charge(ctx, order.ID, order.Cents, lock.Fence())
	if err != nil {
		return Order{}, err
	}
	return s.orders.Update(ctx, order.ID, kv.KeepTTL, func(old Order, _ bool) (Order, error) {
		if old.Fence > lock.Fence() {
			return old, errOvertaken
		}
		old.Receipt, old.Fence = receipt, lock.Fence()
		return old, nil
	})
}
