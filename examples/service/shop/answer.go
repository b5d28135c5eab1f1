package shop

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/kvrecipes/kv"
)

// Handlers return a [kv.Response], which is what idempotency keeps and replays,
// or an error.
type handler func(r *http.Request) (kv.Response, error)

const maxBody = 64 << 10

// problem is an error that the client may see.
type problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
}

func (p *problem) Error() string { return p.Title }

// response answers the problem in the form of RFC 9457.
func (p *problem) response() kv.Response {
	resp := answer(p.Status, p)
	resp.Header["Content-Type"] = []string{"application/problem+json"}
	return resp
}

var (
	errBody      = &problem{http.StatusBadRequest, "the body is not the JSON that is expected here"}
	errTooLong   = &problem{http.StatusRequestEntityTooLarge, "the body is too long"}
	errLogin     = &problem{http.StatusUnauthorized, "log in first"}
	errNotFound  = &problem{http.StatusNotFound, "no such thing"}
	errDown      = &problem{http.StatusServiceUnavailable, "try again later"}
	errUpstream  = &problem{http.StatusBadGateway, "a service that this one needs did not answer well; try again"}
	errKey       = &problem{http.StatusBadRequest, "an Idempotency-Key header of 1 to 200 bytes is needed"}
	errOtherBody = &problem{http.StatusUnprocessableEntity, "this Idempotency-Key was used with another request"}
	errRunning   = &problem{http.StatusConflict, "the same request is being worked on"}
	errFlag      = &problem{http.StatusBadRequest, `a flag is "on", "off" or a percentage`}
	errSignature = &problem{http.StatusUnauthorized, "the signature is wrong"}
	errBug       = &problem{http.StatusInternalServerError, "a bug in this service; it has been logged"}
)

// answer returns v as a JSON response.
func answer(status int, v any) kv.Response {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // of a type that JSON can't express: a bug
	}
	return kv.Response{
		Status: status,
		Header: map[string][]string{"Content-Type": {"application/json"}},
		Body:   append(body, '\n'),
	}
}

// answering makes h an [http.Handler]. A panic in h is answered with 500, as any
// server does; by then the recipes it went through have let go of their claims and locks.
func answering(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				slog.Error("handler panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				write(w, errBug.response())
			}
		}()
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		resp, err := h(r)
		if err != nil {
			resp = explain(r, err)
		}
		write(w, resp)
	})
}

// explain returns the response for an error.
func explain(r *http.Request, err error) kv.Response {
	var p *problem
	switch {
	case errors.As(err, &p):
		return p.response()
	case errors.Is(err, kv.ErrNotFound):
		return errNotFound.response()
	case errors.Is(err, kv.ErrMismatch):
		return errOtherBody.response()
	case errors.Is(err, kv.ErrInProgress):
		resp := errRunning.response()
		resp.Header["Retry-After"] = []string{"1"}
		return resp
	}
	slog.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	return errDown.response()
}

func write(w http.ResponseWriter, resp kv.Response) {
	for name, values := range resp.Header {
		w.Header()[http.CanonicalHeaderKey(name)] = values
	}
	w.WriteHeader(resp.Status)
	w.Write(resp.Body) // an error means that the client has gone
}

func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	var tooLong *http.MaxBytesError
	if errors.As(err, &tooLong) {
		return nil, errTooLong
	}
	if err != nil {
		return nil, errBody
	}
	return body, nil
}

func decode(body []byte, v any) error {
	if json.Unmarshal(body, v) != nil {
		return errBody
	}
	return nil
}
