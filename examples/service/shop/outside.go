package shop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/kvrecipes/kv"
)

// outside is the client of the services that the shop needs.
type outside struct {
	base   string
	client *http.Client
}

func newOutside(base string) outside {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	return outside{base: base, client: &http.Client{Transport: transport}}
}

func (o outside) close() { o.client.CloseIdleConnections() }

func (o outside) product(ctx context.Context, id string) (p Product, err error) {
	return p, o.call(ctx, http.MethodGet, "/products/"+url.PathEscape(id), nil, &p)
}

// reserve returns where the product lies. The reference makes it safe to ask again.
func (o outside) reserve(ctx context.Context, reference, product string) (shelves []string, err error) {
	return shelves, o.call(ctx, http.MethodPost, "/reservations", map[string]any{"reference": reference, "product": product}, &shelves)
}

func (o outside) charge(ctx context.Context, order string, cents int, fence int64) (receipt string, err error) {
	return receipt, o.call(ctx, http.MethodPost, "/charges", map[string]any{"order": order, "cents": cents, "fence": fence}, &receipt)
}

func (o outside) ship(ctx context.Context, order string) error {
	return o.call(ctx, http.MethodPost, "/shipments", map[string]any{"order": order}, nil)
}

// call sends in as JSON and decodes the answer into out; either may be nil.
func (o outside) call(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, o.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return fmt.Errorf("%w (%w)", errUpstream, err)
	}
	defer resp.Body.Close()
	defer io.Copy(io.Discard, resp.Body) // so that the connection can be used again
	if resp.StatusCode == http.StatusNotFound {
		return kv.ErrNotFound
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%w (%s said %s)", errUpstream, path, resp.Status)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}
