// Package shop is a checkout API on a kv.Store: the recipes where a service
// needs them. Any number of shops may share one store; on an engine
// that several processes reach, they may be processes.
package shop

import (
	"net/http"
	"time"

	"github.com/kvrecipes/kv"
)

// Options of [New].
type Options struct {
	Outside   string // base URL of the catalogue, the warehouse and the payment provider
	Secret    string // with which the payment provider signs its webhooks
	PerMinute int64  // requests that one user may make
}

// Shop is the service, an [http.Handler].
type Shop struct {
	mux     *http.ServeMux
	outside outside
	secret  []byte

	sessions *kv.Sessions[login]
	limiter  *kv.RateLimiter
	once     *kv.Idempotency
	locks    *kv.Locker
	orders   *kv.Bucket[Order]
	products *kv.Guarded[Product]
	flags    *kv.Flags
}

// New returns a shop on store. Close it before the store.
func New(store *kv.Store, o Options) (*Shop, error) {
	limiter, err := kv.NewRateLimiter(store, kv.Limit{Requests: o.PerMinute, Window: time.Minute}, nil)
	if err != nil {
		return nil, err
	}
	flags, err := kv.NewFlags(store, nil)
	if err != nil {
		return nil, err
	}
	s := &Shop{
		mux:      http.NewServeMux(),
		outside:  newOutside(o.Outside),
		secret:   []byte(o.Secret),
		sessions: kv.NewSessions(store, &kv.SessionOptions[login]{IdleTTL: 30 * time.Minute, MaxAge: 12 * time.Hour}),
		limiter:  limiter,
		once:     kv.NewIdempotency(store, &kv.IdempotencyOptions{Wait: 10 * time.Second}),
		locks:    kv.NewLocker(store, nil),
		orders:   kv.NewBucket[Order](store, "order", nil),
		products: kv.NewGuarded(store, &kv.GuardedOptions[Product]{
			TTL:         time.Minute,
			StaleFor:    time.Hour, // rather an old price tag than none while the catalogue is down
			NegativeTTL: 10 * time.Second,
			Timeout:     5 * time.Second,
		}),
		flags: flags,
	}
	s.routes()
	return s, nil
}

func (s *Shop) routes() {
	s.mux.Handle("POST /login", answering(s.login))
	s.mux.Handle("POST /logout", answering(s.logout))
	s.mux.Handle("GET /me", s.forUsers(s.me))
	s.mux.Handle("GET /checkout", s.forUsers(s.checkout))
	s.mux.Handle("GET /products/{id}", s.forUsers(s.product))
	s.mux.Handle("POST /orders", s.forUsers(s.createOrder))
	s.mux.Handle("GET /orders/{id}", s.forUsers(s.getOrder))
	s.mux.Handle("POST /orders/{id}/pay", s.forUsers(s.payOrder))
	s.mux.Handle("POST /webhooks/payments", answering(s.paymentEvent))
	s.mux.Handle("GET /flags/{name}", answering(s.getFlag))
	s.mux.Handle("PUT /flags/{name}", answering(s.setFlag)) // for operators: a real service keeps it off the internet
}

// ServeHTTP implements [http.Handler].
func (s *Shop) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Close ends what the shop does in the background.
func (s *Shop) Close() error {
	s.outside.close()
	return s.flags.Close()
}
