package shop

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"

	"github.com/kvrecipes/kv"
)

// event is what the payment provider tells us: at least once, often more than
// once, and again when we fail.
type event struct {
	ID    string `json:"id"`
	Type  string `json:"type"`
	Order string `json:"order"`
}

// paymentEvent handles each event until that has succeeded, and then no more.
func (s *Shop) paymentEvent(r *http.Request) (kv.Response, error) {
	body, err := readBody(r)
	if err != nil {
		return kv.Response{}, err
	}
	if !hmac.Equal([]byte(Sign(string(s.secret), body)), []byte(r.Header.Get("Signature"))) {
		return kv.Response{}, errSignature
	}
	var e event
	if err := decode(body, &e); err != nil {
		return kv.Response{}, err
	}
	processed, err := s.once.Process(r.Context(), e.ID, func(ctx context.Context) error { return s.handle(ctx, e) })
	if err != nil { // not marked as processed: the provider's next delivery tries again
		return kv.Response{}, err
	}
	return answer(http.StatusOK, map[string]bool{"duplicate": !processed}), nil
}

func (s *Shop) handle(ctx context.Context, e event) error {
	if e.Type != "payment.settled" {
		return nil
	}
	if err := s.outside.ship(ctx, e.Order); err != nil {
		return err
	}
	_, err := s.orders.Update(ctx, e.Order, kv.KeepTTL, func(order Order, exists bool) (Order, error) {
		if !exists {
			return order, kv.ErrNotFound
		}
		order.Shipped = true
		return order, nil
	})
	return err
}

// Sign returns the signature of a webhook's body.
func Sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}
