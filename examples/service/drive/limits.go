package drive

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// counter counts from many goroutines.
type counter struct {
	mu    sync.Mutex
	value int
}

func (c *counter) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.value += n
}

func (c *counter) n() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.value
}

// rollOut turns the new checkout on for more and more people.
func (d *drive) rollOut() error {
	var f faults
	units := make([]string, 1000)
	for i := range units {
		units[i] = fmt.Sprintf("visitor-%d", i)
	}
	before := map[string]bool{}
	counts := []int{}
	for _, percent := range []int{0, 30, 60, 100} {
		_, err := d.newCustomer("operator").do(http.MethodPut, "/flags/new-checkout", strconv.Itoa(percent), nil)
		if f.failed(err) {
			return f.err
		}
		on, agree, err := d.awaitFlag(units, percent)
		if f.failed(err) {
			return f.err
		}
		f.unless(agree, "the shops don't agree at %d %%", percent)
		for unit := range before {
			f.unless(on[unit], "%s lost the new checkout at %d %%", unit, percent)
		}
		counts, before = append(counts, len(on)), on
	}
	d.check("a new checkout for 0, 30, 60 and 100 % of 1,000 visitors", fmt.Sprintf("for %d, %d, %d and %d; who had it kept it", counts[0], counts[1], counts[2], counts[3]), f.list...)
	return f.err
}

// awaitFlag waits until every shop has heard of the flag's new percentage, and
// returns for whom it is on, and whether all shops say the same.
func (d *drive) awaitFlag(units []string, percent int) (on map[string]bool, agree bool, err error) {
	agree = true
	for _, shop := range d.Shops {
		var here map[string]bool
		for deadline := time.Now().Add(5 * time.Second); ; {
			if here, err = d.flagAt(shop, units); err != nil {
				return nil, false, err
			}
			// Within 5 % of what was asked for: the old percentages are 30 % away.
			if got := len(here) * 100 / len(units); got > percent-5 && got < percent+5 {
				break
			}
			if time.Now().After(deadline) {
				return here, false, nil
			}
			time.Sleep(time.Millisecond) // nothing to wait on: this is what the shop looks like from outside
		}
		agree = agree && (on == nil || len(on) == len(here))
		for unit := range on {
			agree = agree && here[unit]
		}
		on = here
	}
	return on, agree, nil
}

// flagAt returns the units for which one shop has the new checkout on.
func (d *drive) flagAt(shop string, units []string) (map[string]bool, error) {
	r, err := d.newCustomer("operator").doAt(shop, http.MethodGet, "/flags/new-checkout?"+url.Values{"unit": units}.Encode(), "", nil)
	if err != nil {
		return nil, err
	}
	var answers map[string]bool
	if err := json.Unmarshal([]byte(r.body), &answers); err != nil {
		return nil, err
	}
	on := make(map[string]bool)
	for unit, enabled := range answers {
		if enabled {
			on[unit] = true
		}
	}
	return on, nil
}

// flood is one customer who sends five times what is allowed, and what the others notice of it.
func (d *drive) flood() error {
	var f faults
	mallory := d.newCustomer("mallory")
	if err := mallory.logIn(); err != nil {
		return err
	}
	n := 5 * d.PerMinute
	var mu sync.Mutex
	remaining := make(map[string]bool)
	together(n+customers, func(i int) {
		if i >= n {
			r, err := d.customers[i-n].get("/checkout")
			f.unless(f.failed(err) || r.status == http.StatusOK, "%s gets %d", d.customers[i-n].name, r.status)
			return
		}
		r, err := mallory.get("/me")
		if f.failed(err) {
			return
		}
		f.unless(r.header.Get("RateLimit-Limit") == strconv.Itoa(d.PerMinute), "RateLimit-Limit: %q", r.header.Get("RateLimit-Limit"))
		mu.Lock()
		defer mu.Unlock()
		if r.status == http.StatusOK {
			remaining[r.header.Get("RateLimit-Remaining")] = true
			return
		}
		wait, err := strconv.Atoi(r.header.Get("Retry-After"))
		f.unless(r.status == http.StatusTooManyRequests && err == nil && wait >= 1 && wait <= 60, "%d, Retry-After %q", r.status, r.header.Get("Retry-After"))
	})
	d.mu.Lock()
	admitted, refused := d.admitted["mallory"], d.refused["mallory"]
	d.mu.Unlock()
	f.unless(admitted == d.PerMinute && refused == n-admitted, "%d admitted, %d refused", admitted, refused)
	f.unless(len(remaining) == d.PerMinute, "%d different values of RateLimit-Remaining", len(remaining))
	d.check(fmt.Sprintf("one customer sends %d requests at once, %d a minute are allowed", n, d.PerMinute),
		fmt.Sprintf("%d admitted, %d times 429 with Retry-After", d.PerMinute, n-d.PerMinute), f.list...)
	return f.err
}

// account looks back on the whole run.
func (d *drive) account() error {
	var f faults
	d.mu.Lock()
	defer d.mu.Unlock()
	busiest := 0
	for user, n := range d.admitted {
		f.unless(n <= d.PerMinute, "%s was admitted %d times", user, n)
		if user != "mallory" {
			busiest = max(busiest, n)
			f.unless(d.refused[user] == 0, "%s was refused %d times", user, d.refused[user])
		}
	}
	d.check(fmt.Sprintf("everybody else sends up to %d", busiest), "none refused", f.list...)
	return nil
}
