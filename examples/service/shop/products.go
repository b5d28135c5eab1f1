package shop

import (
	"context"
	"net/http"

	"github.com/kvrecipes/kv"
)

// Product is an entry of the catalogue, which is slow.
type Product struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Cents int    `json:"cents"`
}

func (s *Shop) product(r *http.Request, _ string) (kv.Response, error) {
	product, err := s.lookUp(r.Context(), r.PathValue("id"))
	if err != nil {
		return kv.Response{}, err
	}
	return answer(http.StatusOK, product), nil
}

// lookUp asks the catalogue once for each product, however many ask at the same
// time and in however many processes, and then no more for a minute.
func (s *Shop) lookUp(ctx context.Context, id string) (Product, error) {
	return s.products.Get(ctx, id, func(ctx context.Context) (Product, error) {
		return s.outside.product(ctx, id)
	})
}
