package shop

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/kvrecipes/kv"
)

// login is what a session holds.
type login struct {
	User string `json:"user"`
}

const cookieName = "session"

// login begins a session. A real service checks a password or a passkey here.
func (s *Shop) login(r *http.Request) (kv.Response, error) {
	body, err := readBody(r)
	if err != nil {
		return kv.Response{}, err
	}
	var who login
	if decode(body, &who) != nil || who.User == "" || len(who.User) > 100 {
		return kv.Response{}, errBody
	}
	// A new login gets a new id, and what the browser had before is worth nothing from now on.
	if c, err := r.Cookie(cookieName); err == nil {
		if err := s.sessions.Destroy(r.Context(), c.Value); err != nil && !errors.Is(err, kv.ErrNotFound) {
			return kv.Response{}, err
		}
	}
	id, err := s.sessions.Create(r.Context(), who)
	if err != nil {
		return kv.Response{}, err
	}
	return withCookie(answer(http.StatusOK, who), &http.Cookie{Value: id}), nil
}

func (s *Shop) logout(r *http.Request) (kv.Response, error) {
	if c, err := r.Cookie(cookieName); err == nil {
		if err := s.sessions.Destroy(r.Context(), c.Value); err != nil && !errors.Is(err, kv.ErrNotFound) {
			return kv.Response{}, err
		}
	}
	return withCookie(kv.Response{Status: http.StatusNoContent}, &http.Cookie{MaxAge: -1}), nil
}

// withCookie adds the session cookie. Over HTTPS it would be Secure, too.
func withCookie(resp kv.Response, c *http.Cookie) kv.Response {
	c.Name, c.Path, c.HttpOnly, c.SameSite = cookieName, "/", true, http.SameSiteLaxMode
	if resp.Header == nil {
		resp.Header = make(map[string][]string)
	}
	resp.Header["Set-Cookie"] = []string{c.String()}
	return resp
}

func (s *Shop) me(r *http.Request, user string) (kv.Response, error) {
	return answer(http.StatusOK, login{user}), nil
}

// forUsers makes h a handler for those who have logged in, within their rate limit.
func (s *Shop) forUsers(h func(r *http.Request, user string) (kv.Response, error)) http.Handler {
	return answering(func(r *http.Request) (kv.Response, error) {
		c, err := r.Cookie(cookieName)
		if err != nil {
			return kv.Response{}, errLogin
		}
		who, err := s.sessions.Get(r.Context(), c.Value)
		if errors.Is(err, kv.ErrNotFound) {
			return kv.Response{}, errLogin
		}
		if err != nil {
			return kv.Response{}, err
		}
		limit, err := s.limiter.Allow(r.Context(), who.User)
		if err != nil { // the store fails: a shop would rather be closed than plundered
			return kv.Response{}, err
		}
		return limited(limit, r, func() (kv.Response, error) { return h(r, who.User) }), nil
	})
}

// limited answers 429 to what is over the limit, and tells everybody where they
// stand (draft-ietf-httpapi-ratelimit-headers-06).
func limited(limit kv.RateLimitResult, r *http.Request, next func() (kv.Response, error)) kv.Response {
	var resp kv.Response
	if limit.Allowed {
		var err error
		if resp, err = next(); err != nil {
			resp = explain(r, err)
		}
	} else {
		p := problem{http.StatusTooManyRequests, fmt.Sprintf("no more than %d requests a minute", limit.Limit)}
		resp = p.response()
		resp.Header["Retry-After"] = []string{seconds(limit.RetryAfter)}
		slog.Debug("over the limit", "path", r.URL.Path)
	}
	if resp.Header == nil {
		resp.Header = make(map[string][]string)
	}
	resp.Header["Ratelimit-Policy"] = []string{fmt.Sprintf("%d;w=60", limit.Limit)}
	resp.Header["Ratelimit-Limit"] = []string{strconv.FormatInt(limit.Limit, 10)}
	resp.Header["Ratelimit-Remaining"] = []string{strconv.FormatInt(limit.Remaining, 10)}
	resp.Header["Ratelimit-Reset"] = []string{seconds(limit.ResetAfter)}
	return resp
}

// seconds rounds up: who comes back after so many seconds must not be too early.
func seconds(d time.Duration) string {
	return strconv.FormatFloat(math.Ceil(d.Seconds()), 'f', 0, 64)
}
