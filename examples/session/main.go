// Session is a login with net/http: a basket filled before the login is kept, the
// id that the browser had before is worth nothing after it, and who does
// nothing for a while is logged out.
//
//	go run ./examples/session
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/kvrecipes/kv"
)

const (
	idleTTL = 2 * time.Second // half an hour, where real people click
	maxAge  = time.Minute     // and a day
)

// login is what a session holds. It never leaves the server.
type login struct {
	User   string
	Basket []string
}

type app struct{ sessions *kv.Sessions[login] }

func (a app) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /basket/{item}", a.add)
	mux.HandleFunc("POST /login/{user}", a.login)
	mux.HandleFunc("GET /me", a.me)
	mux.HandleFunc("POST /logout", a.logout)
	return mux
}

// add puts an item into the basket, and begins a session if there is none.
func (a app) add(w http.ResponseWriter, r *http.Request) {
	l, err := a.sessions.Update(r.Context(), cookie(r), func(l login) (login, error) {
		l.Basket = append(l.Basket, r.PathValue("item"))
		return l, nil
	})
	if errors.Is(err, kv.ErrNotFound) { // no cookie, or one that has ended
		var id string
		l = login{Basket: []string{r.PathValue("item")}}
		id, err = a.sessions.Create(r.Context(), l)
		setCookie(w, id)
	}
	answer(w, l, err)
}

// login has checked the password (in a real service), and gives the session a
// new id: somebody who knew the old one must not be logged in with it.
func (a app) login(w http.ResponseWriter, r *http.Request) {
	id, err := a.sessions.Rotate(r.Context(), cookie(r))
	if errors.Is(err, kv.ErrNotFound) {
		id, err = a.sessions.Create(r.Context(), login{})
	}
	if err != nil {
		answer(w, login{}, err)
		return
	}
	setCookie(w, id)
	l, err := a.sessions.Update(r.Context(), id, func(l login) (login, error) {
		l.User = r.PathValue("user")
		return l, nil
	})
	answer(w, l, err)
}

func (a app) me(w http.ResponseWriter, r *http.Request) {
	l, err := a.sessions.Get(r.Context(), cookie(r))
	answer(w, l, err)
}

func (a app) logout(w http.ResponseWriter, r *http.Request) {
	err := a.sessions.Destroy(r.Context(), cookie(r))
	if errors.Is(err, kv.ErrNotFound) {
		err = nil // logged out already
	}
	setCookie(w, "")
	answer(w, login{}, err)
}

func cookie(r *http.Request) string {
	c, err := r.Cookie("id")
	if err != nil {
		return "" // which is no session's id
	}
	return c.Value
}

func setCookie(w http.ResponseWriter, id string) {
	http.SetCookie(w, &http.Cookie{Name: "id", Value: id, Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode})
}

func answer(w http.ResponseWriter, l login, err error) {
	switch {
	case errors.Is(err, kv.ErrNotFound):
		http.Error(w, "no session", http.StatusUnauthorized)
	case err != nil:
		http.Error(w, "try again later", http.StatusServiceUnavailable)
	default:
		user := l.User
		if user == "" {
			user = "somebody"
		}
		fmt.Fprintf(w, "%s, with %d in the basket", user, len(l.Basket))
	}
}

func main() {
	store := kv.New(nil)
	defer store.Close()
	sessions := kv.NewSessions(store, &kv.SessionOptions[login]{IdleTTL: idleTTL, MaxAge: maxAge})
	server := httptest.NewTLSServer(app{sessions}.routes()) // a real server, on loopback
	defer server.Close()
	if err := tour(store, server); err != nil {
		fmt.Fprintln(os.Stderr, "session:", err)
		os.Exit(1)
	}
}

// tour is a browser's visit, and an attacker's.
func tour(store *kv.Store, server *httptest.Server) error {
	expired, err := store.Watch(context.Background(), "session:")
	if err != nil {
		return err
	}
	defer expired.Stop()

	ada, mallory := newBrowser("ada", server), newBrowser("mallory", server)
	ada.do("POST", "/basket/tea", "200 somebody, with 1 in the basket")
	mallory.steal(ada)
	mallory.do("GET", "/me", "200 somebody, with 1 in the basket")
	ada.do("POST", "/login/ada", "200 ada, with 1 in the basket")
	ada.do("POST", "/basket/milk", "200 ada, with 2 in the basket")
	mallory.do("GET", "/me", "401 no session") // but not ada's
	ada.do("POST", "/logout", "200 somebody, with 0 in the basket")
	ada.do("GET", "/me", "401 no session")
	ada.do("POST", "/login/ada", "200 ada, with 0 in the basket")

	fmt.Println("\nWhat the store holds is the hash of an id, not the id:")
	for e, err := range store.Scan(context.Background(), kv.Range{Prefix: "session:"}) {
		if err != nil {
			return err
		}
		if strings.Contains(e.Key+e.Value, ada.id()) {
			return errors.New("the store knows the id")
		}
		fmt.Printf("  %s for %s\n\n", e.Key, time.Until(e.ExpiresAt).Round(10*time.Millisecond))
	}
	began := time.Now()
	for e := range expired.Events() { // Ada has gone for lunch
		if e.Type == kv.EventExpire {
			break
		}
	}
	fmt.Printf("It ended after %s without a request.\n", time.Since(began).Round(100*time.Millisecond))
	ada.do("GET", "/me", "401 no session")
	return errors.Join(ada.err, mallory.err)
}

// browser keeps cookies, and remembers the first answer that was not as expected.
type browser struct {
	name   string
	url    *url.URL
	client http.Client
	err    error
}

func newBrowser(name string, server *httptest.Server) *browser {
	b := &browser{name: name, client: *server.Client()}
	b.url, b.err = url.Parse(server.URL)
	b.client.Jar, _ = cookiejar.New(nil) // has no errors to return
	return b
}

func (b *browser) do(method, path, want string) {
	got, err := b.request(method, path)
	if err == nil && got != want {
		err = fmt.Errorf("%s %s: got %q, want %q", method, path, got, want)
	}
	if b.err == nil {
		b.err = err
	}
	fmt.Printf("%-8s %-4s %-13s id=%-7.6s %s\n", b.name, method, path, b.id(), got)
}

func (b *browser) request(method, path string) (string, error) {
	req, err := http.NewRequest(method, b.url.JoinPath(path).String(), nil)
	if err != nil {
		return "", err
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, strings.TrimSpace(string(body))), err
}

func (b *browser) id() string {
	for _, c := range b.client.Jar.Cookies(b.url) {
		return c.Value
	}
	return ""
}

// steal copies the cookie of another browser, as a script in a page or a borrowed phone would.
func (b *browser) steal(from *browser) {
	b.client.Jar.SetCookies(b.url, from.client.Jar.Cookies(from.url))
	fmt.Printf("%-8s has got hold of %s's cookie\n", b.name, from.name)
}
