package shop

import (
	"errors"
	"net/http"
	"strings"

	"github.com/kvrecipes/kv"
)

const newCheckout = "new-checkout"

// checkoutOf says which checkout a user sees: a look at a local copy, no request to anything.
func (s *Shop) checkoutOf(user string) string {
	if s.flags.Enabled(newCheckout, user) {
		return "new"
	}
	return "classic"
}

func (s *Shop) checkout(_ *http.Request, user string) (kv.Response, error) {
	return answer(http.StatusOK, map[string]string{"checkout": s.checkoutOf(user)}), nil
}

// getFlag says for which of the units that are asked about a flag is on.
func (s *Shop) getFlag(r *http.Request) (kv.Response, error) {
	on := make(map[string]bool)
	for _, unit := range r.URL.Query()["unit"] {
		on[unit] = s.flags.Enabled(r.PathValue("name"), unit)
	}
	return answer(http.StatusOK, on), nil
}

func (s *Shop) setFlag(r *http.Request) (kv.Response, error) {
	body, err := readBody(r)
	if err != nil {
		return kv.Response{}, err
	}
	err = s.flags.Set(r.Context(), r.PathValue("name"), strings.TrimSpace(string(body)))
	if errors.Is(err, kv.ErrInvalidFlag) {
		return kv.Response{}, errFlag
	}
	return kv.Response{Status: http.StatusNoContent}, err
}
