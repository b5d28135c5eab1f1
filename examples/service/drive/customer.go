package drive

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
)

// customer is somebody with a browser. Its requests go to the shops in turn.
type customer struct {
	drive  *drive
	name   string
	cookie *http.Cookie
	turn   atomic.Int64

	key     string // of the order
	order   string // id
	body    string // of the answer to the order
	receipt string
}

func (d *drive) newCustomer(name string) *customer { return &customer{drive: d, name: name} }

// reply is a response that has been read.
type reply struct {
	status int
	header http.Header
	body   string
}

// into decodes the body; what is no JSON leaves v as it is.
func (r reply) into(v any) { _ = json.Unmarshal([]byte(r.body), v) }

func (c *customer) get(path string) (reply, error) { return c.do(http.MethodGet, path, "", nil) }

func (c *customer) post(path, body string) (reply, error) {
	return c.do(http.MethodPost, path, body, nil)
}

// do sends a request with the customer's cookie to the shop whose turn it is.
func (c *customer) do(method, path, body string, header map[string]string) (reply, error) {
	shop := c.drive.Shops[int(c.turn.Add(1))%len(c.drive.Shops)]
	return c.doAt(shop, method, path, body, header)
}

func (c *customer) doAt(shop, method, path, body string, header map[string]string) (reply, error) {
	req, err := http.NewRequestWithContext(c.drive.ctx, method, shop+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	if c.cookie != nil {
		req.AddCookie(c.cookie)
	}
	c.drive.requests.Add(1)
	resp, err := c.drive.client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	c.drive.count(c.name, resp)
	return reply{resp.StatusCode, resp.Header, string(text)}, nil
}

// count keeps account of what the rate limit let pass. Only answers to users carry its headers.
func (d *drive) count(user string, resp *http.Response) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		d.refused[user]++
	case resp.Header.Get("RateLimit-Limit") != "":
		d.admitted[user]++
	}
}

func (c *customer) logIn() error {
	r, err := c.post("/login", fmt.Sprintf(`{"user":%q}`, c.name))
	if err != nil {
		return err
	}
	cookies := (&http.Response{Header: r.header}).Cookies()
	if r.status != http.StatusOK || len(cookies) != 1 {
		return fmt.Errorf("%s can't log in: %d %s", c.name, r.status, r.body)
	}
	c.cookie = cookies[0]
	return nil
}
