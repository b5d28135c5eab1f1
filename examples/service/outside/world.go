// Package outside plays what lies around the shop: a slow catalogue, a warehouse
// and a payment provider. It counts what happens to it and never counts a thing
// away: if the shop charges twice, that is two charges.
package outside

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// Slow is how long the catalogue takes for a product; a charge takes a fifth of that.
const Slow = 50 * time.Millisecond

// World is an [http.Handler] with the four services.
type World struct {
	mux      *http.ServeMux
	products map[string]product

	mu           sync.Mutex
	lookups      map[string]int      // product -> times that the catalogue was asked
	reservations map[string][]string // reference -> shelves
	charges      map[string][]Charge // order -> charges
	shipments    map[string]int      // order -> parcels
	troubles     map[string]bool     // what goes wrong the next time
}

type product struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Cents int    `json:"cents"`
}

// Charge is money taken from a customer.
type Charge struct {
	Cents   int
	Fence   int64
	Receipt string
}

// NewWorld returns a world in which nothing has happened.
func NewWorld() *World {
	w := &World{
		mux:          http.NewServeMux(),
		products:     make(map[string]product),
		lookups:      make(map[string]int),
		reservations: make(map[string][]string),
		charges:      make(map[string][]Charge),
		shipments:    make(map[string]int),
		troubles:     make(map[string]bool),
	}
	for _, p := range []product{
		{"teapot", "Teapot, short and stout", 2900}, {"kettle", "Kettle, black", 4900}, {"cup", "Cup of sugar", 700},
		{"spoon", "Spoon, silver", 1200}, {"tray", "Tray of tea", 3300},
	} {
		w.products[p.ID] = p
	}
	w.mux.HandleFunc("GET /products/{id}", w.getProduct)
	w.mux.HandleFunc("POST /reservations", w.reserve)
	w.mux.HandleFunc("POST /charges", w.charge)
	w.mux.HandleFunc("POST /shipments", w.ship)
	return w
}

// ServeHTTP implements [http.Handler].
func (w *World) ServeHTTP(rw http.ResponseWriter, r *http.Request) { w.mux.ServeHTTP(rw, r) }

// Products returns the ids of all products.
func (w *World) Products() []string { return []string{"teapot", "kettle", "cup", "spoon", "tray"} }

// EmptyShelf makes the warehouse answer the next reservation with this reference with no shelf at all.
func (w *World) EmptyShelf(reference string) { w.trouble("reservation " + reference) }

// RefuseCharge makes the payment provider fail the next charge of an order, without charging.
func (w *World) RefuseCharge(order string) { w.trouble("charge " + order) }

// RefuseShipment makes the warehouse fail the next shipment of an order, without shipping.
func (w *World) RefuseShipment(order string) { w.trouble("shipment " + order) }

func (w *World) trouble(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.troubles[what] = true
}

// troubledLocked says whether something goes wrong with this, which it does once. w.mu is held.
func (w *World) troubledLocked(what string) bool {
	bad := w.troubles[what]
	delete(w.troubles, what)
	return bad
}

// Lookups returns how often the catalogue was asked for a product.
func (w *World) Lookups(product string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lookups[product]
}

// Reservations returns how many references have something reserved.
func (w *World) Reservations() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.reservations)
}

// Charges returns the charges of an order.
func (w *World) Charges(order string) []Charge {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Charge(nil), w.charges[order]...)
}

// Shipments returns how many parcels were sent for an order.
func (w *World) Shipments(order string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shipments[order]
}

func (w *World) getProduct(rw http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	w.mu.Lock()
	w.lookups[id]++
	w.mu.Unlock()
	if !pause(r, Slow) {
		return
	}
	p, ok := w.products[id]
	if !ok {
		http.NotFound(rw, r)
		return
	}
	answer(rw, p)
}

func (w *World) reserve(rw http.ResponseWriter, r *http.Request) {
	var asked struct{ Reference, Product string }
	if !decode(rw, r, &asked) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.troubledLocked("reservation " + asked.Reference) {
		answer(rw, []string{})
		return
	}
	if w.reservations[asked.Reference] == nil {
		w.reservations[asked.Reference] = []string{"shelf " + asked.Product[:1]}
	}
	answer(rw, w.reservations[asked.Reference])
}

// charge takes the money, unless it has seen a higher fence for the order: then
// the shop that asks has lost its lock without knowing.
func (w *World) charge(rw http.ResponseWriter, r *http.Request) {
	var asked struct {
		Order string
		Cents int
		Fence int64
	}
	if !decode(rw, r, &asked) || !pause(r, Slow/5) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.troubledLocked("charge " + asked.Order) {
		http.Error(rw, "the bank is closed", http.StatusServiceUnavailable)
		return
	}
	for _, c := range w.charges[asked.Order] {
		if c.Fence > asked.Fence {
			http.Error(rw, "overtaken", http.StatusConflict)
			return
		}
	}
	receipt := "R-" + rand.Text()[:8]
	w.charges[asked.Order] = append(w.charges[asked.Order], Charge{asked.Cents, asked.Fence, receipt})
	answer(rw, receipt)
}

func (w *World) ship(rw http.ResponseWriter, r *http.Request) {
	var asked struct{ Order string }
	if !decode(rw, r, &asked) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.troubledLocked("shipment " + asked.Order) {
		http.Error(rw, "no van", http.StatusServiceUnavailable)
		return
	}
	w.shipments[asked.Order]++
	answer(rw, "sent")
}

// pause takes its time. It returns false when the client has gone.
func pause(r *http.Request, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-r.Context().Done():
		return false
	}
}

func decode(rw http.ResponseWriter, r *http.Request, v any) bool {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func answer(rw http.ResponseWriter, v any) {
	rw.Header().Set("Content-Type", "application/json")
	json.NewEncoder(rw).Encode(v) // an error means that the shop has gone
}
