package drive

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/examples/service/shop"
)

// logIn gives everybody a session, and tries what is none.
func (d *drive) logIn() error {
	var f faults
	for i := range customers {
		d.customers = append(d.customers, d.newCustomer(fmt.Sprintf("customer-%02d", i+1)))
	}
	together(customers, func(i int) { f.failed(d.customers[i].logIn()) })
	ids := make(map[string]bool)
	for _, c := range d.customers {
		if c.cookie != nil {
			ids[c.cookie.Value] = true
		}
	}
	f.unless(len(ids) == customers, "%d different sessions", len(ids))
	together(customers*len(d.Shops), func(i int) {
		c := d.customers[i%customers]
		r, err := c.doAt(d.Shops[i/customers], http.MethodGet, "/me", "", nil)
		f.unless(f.failed(err) || strings.Contains(r.body, `"`+c.name+`"`), "%s is %s", c.name, r.body)
	})
	d.check(fmt.Sprintf("%d customers log in", customers), fmt.Sprintf("%d sessions, good in each of %d shops", customers, len(d.Shops)), f.list...)
	d.strangers()
	return f.err
}

// strangers are those without a session, with one that never was, and with one that has ended.
func (d *drive) strangers() {
	var f faults
	gone := d.newCustomer("gone")
	f.failed(gone.logIn())
	_, err := gone.post("/logout", "")
	f.failed(err)
	together(10, func(i int) {
		c := gone
		if i > 0 {
			c = d.newCustomer("stranger")
		}
		if i > 4 {
			c.cookie = &http.Cookie{Name: "session", Value: rand.Text()}
		}
		r, err := c.get("/me")
		f.unless(!f.failed(err) && r.status == http.StatusUnauthorized, "a stranger gets %d", r.status)
	})
	d.check("10 come without a session, with a forged one or after logout", "10 times 401", f.list...)
}

// browse asks for all products at once, while nobody knows them yet.
func (d *drive) browse() error {
	var f faults
	products := d.World.Products()
	n := len(products) * customers
	together(n, func(i int) {
		r, err := d.customers[i%customers].get("/products/" + products[i/customers])
		f.unless(f.failed(err) || r.status == http.StatusOK, "%s: %d", products[i/customers], r.status)
	})
	for _, p := range products {
		f.unless(d.World.Lookups(p) == 1, "%d lookups of %s", d.World.Lookups(p), p)
	}
	d.check(fmt.Sprintf("%d ask at once for %d products of a slow catalogue", n, len(products)), fmt.Sprintf("%d lookups: one for each", len(products)), f.list...)

	f.list = nil
	together(customers, func(i int) {
		r, err := d.customers[i].get("/products/unicorn")
		f.unless(f.failed(err) || r.status == http.StatusNotFound, "%d", r.status)
	})
	f.unless(d.World.Lookups("unicorn") == 1, "%d lookups", d.World.Lookups("unicorn"))
	d.check(fmt.Sprintf("%d ask for one that does not exist", customers), fmt.Sprintf("%d times 404, 1 lookup", customers), f.list...)
	return f.err
}

const (
	orderCopies = 8
	payCopies   = 6
	eventCopies = 5
	troubleEach = 4 // one customer in so many has bad luck
)

// order lets each customer press the button many times. For some of them the
// handler that comes first crashes on an empty shelf.
func (d *drive) order() error {
	var f faults
	var all, crashes counter
	for i, c := range d.customers {
		c.key = rand.Text()
		if i%troubleEach == 0 {
			d.World.EmptyShelf(kv.Key(c.name, c.key))
		}
	}
	copies := make([][]reply, customers)
	for i := range copies {
		copies[i] = make([]reply, orderCopies)
	}
	together(customers*orderCopies, func(i int) {
		r, err := d.customers[i%customers].sendOrder("teapot")
		f.failed(err)
		copies[i%customers][i/customers] = r
		all.add(1)
	})
	for i, c := range d.customers {
		crashes.add(c.judgeOrder(copies[i], i%troubleEach == 0, &f))
	}
	f.unless(d.World.Reservations() == customers, "%d reservations", d.World.Reservations())
	d.check(fmt.Sprintf("%d orders, each sent %d times at once; %d handlers crash half-way", customers, orderCopies, crashes.n()),
		fmt.Sprintf("%d orders; %d repetitions answered byte for byte", customers, all.n()-customers-crashes.n()), f.list...)

	f.list = nil
	together(customers, func(i int) {
		r, err := d.customers[i].sendOrder("kettle")
		f.unless(f.failed(err) || r.status == http.StatusUnprocessableEntity, "%d", r.status)
	})
	d.check(fmt.Sprintf("%d send another order with the same Idempotency-Key", customers), fmt.Sprintf("%d times 422", customers), f.list...)
	return f.err
}

func (c *customer) sendOrder(product string) (reply, error) {
	return c.do(http.MethodPost, "/orders", fmt.Sprintf(`{"product":%q}`, product), map[string]string{"Idempotency-Key": c.key})
}

// judgeOrder looks at the answers to one order's copies, sends what crashed
// again as a browser would, and returns how many crashed.
func (c *customer) judgeOrder(copies []reply, trouble bool, f *faults) (crashes int) {
	fresh := 0
	for _, r := range copies {
		switch {
		case r.status == http.StatusInternalServerError:
			crashes++
		case r.status != http.StatusCreated:
			f.unless(false, "%s gets %d %s", c.name, r.status, r.body)
		case r.header.Get("Idempotent-Replayed") == "":
			fresh++
			fallthrough
		default:
			f.unless(c.body == "" || c.body == r.body, "%s gets different answers", c.name)
			c.body = r.body
		}
	}
	again, err := c.sendOrder("teapot")
	f.unless(f.failed(err) || again.body == c.body, "%s gets %d later", c.name, again.status)
	f.unless(fresh == 1, "%s has %d orders", c.name, fresh)
	f.unless(trouble == (crashes == 1), "%d crashes for %s", crashes, c.name)
	var order shop.Order
	again.into(&order)
	c.order = order.ID
	return crashes
}

// pay pays each order in many tabs at once. For some the first charge fails.
func (d *drive) pay() error {
	var f faults
	for i, c := range d.customers {
		if i%troubleEach == 1 {
			d.World.RefuseCharge(c.order)
		}
	}
	together(customers*payCopies, func(i int) {
		c := d.customers[i%customers]
		r, err := c.post("/orders/"+c.order+"/pay", "")
		for err == nil && r.status == http.StatusBadGateway {
			r, err = c.post("/orders/"+c.order+"/pay", "")
		}
		f.failed(err)
		var order shop.Order
		r.into(&order)
		c.judgeReceipt(order.Receipt, &f)
	})
	refused := 0
	for i, c := range d.customers {
		charges := d.World.Charges(c.order)
		f.unless(len(charges) == 1 && charges[0].Cents == 2900 && charges[0].Receipt == c.receipt, "%s: charges %v, receipt %s", c.name, charges, c.receipt)
		if i%troubleEach == 1 {
			refused++
		}
	}
	d.check(fmt.Sprintf("each order paid in %d tabs at once; %d charges fail at first", payCopies, refused),
		fmt.Sprintf("%d charges: one for each order, one receipt in all tabs", customers), f.list...)
	return f.err
}

// judgeReceipt compares what one tab got with what the others did.
func (c *customer) judgeReceipt(receipt string, f *faults) {
	c.drive.mu.Lock()
	defer c.drive.mu.Unlock()
	f.unless(receipt != "" && (c.receipt == "" || c.receipt == receipt), "%s has receipts %q and %q", c.name, c.receipt, receipt)
	c.receipt = receipt
}

// settle is the payment provider: it tells the shop about every payment several
// times at once, and again as long as it does not get a 200.
func (d *drive) settle() error {
	var f faults
	var deliveries, first counter
	provider := d.newCustomer("provider")
	for i, c := range d.customers {
		if i%troubleEach == 2 {
			d.World.RefuseShipment(c.order)
		}
	}
	together(customers, func(i int) {
		body := fmt.Sprintf(`{"id":"evt_%s","type":"payment.settled","order":%q}`, d.customers[i].receipt, d.customers[i].order)
		header := map[string]string{"Signature": shop.Sign(d.Secret, []byte(body))}
		for left := eventCopies; left > 0 && d.ctx.Err() == nil; {
			var accepted counter
			together(left, func(int) {
				deliveries.add(1)
				r, err := provider.do(http.MethodPost, "/webhooks/payments", body, header)
				if f.failed(err) || r.status != http.StatusOK {
					return
				}
				accepted.add(1)
				if strings.Contains(r.body, `"duplicate":false`) {
					first.add(1)
				}
			})
			left -= accepted.n()
		}
	})
	f.unless(first.n() == customers, "%d events handled", first.n())
	for _, c := range d.customers {
		f.unless(d.World.Shipments(c.order) == 1, "%d parcels for %s", d.World.Shipments(c.order), c.name)
	}
	forged, err := provider.do(http.MethodPost, "/webhooks/payments", `{"id":"evt_x"}`, map[string]string{"Signature": "sha256=00"})
	f.unless(f.failed(err) || forged.status == http.StatusUnauthorized, "a forged event gets %d", forged.status)
	d.check(fmt.Sprintf("%d webhooks in %d deliveries, one event in %d fails at first", customers, deliveries.n(), troubleEach), fmt.Sprintf("%d parcels: one for each order", customers), f.list...)
	return f.err
}
