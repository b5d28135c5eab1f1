package kv_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/kvrecipes/kv"
)

func ExampleSessions() {
	type login struct{ User string }

	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	sessions := kv.NewSessions(store, &kv.SessionOptions[login]{
		IdleTTL: 30 * time.Minute, // since the last request
		MaxAge:  12 * time.Hour,   // since the login
	})

	id, err := sessions.Create(ctx, login{})
	fmt.Println(len(id), err)

	// At login: change the id, then say who it is.
	newID, err := sessions.Rotate(ctx, id)
	if err == nil {
		_, err = sessions.Update(ctx, newID, func(l login) (login, error) {
			l.User = "ada"
			return l, nil
		})
	}
	fmt.Println(err)

	_, err = sessions.Get(ctx, id)
	fmt.Println("old id:", err)
	l, err := sessions.Get(ctx, newID)
	fmt.Println("new id:", l.User, err)

	fmt.Println(sessions.Destroy(ctx, newID)) // at logout
	_, err = sessions.Get(ctx, newID)
	fmt.Println(err)
	// Output:
	// 43 <nil>
	// <nil>
	// old id: not found
	// new id: ada <nil>
	// <nil>
	// not found
}

// A middleware that lets only those through who are logged in.
func ExampleSessions_Get() {
	type login struct{ User string }
	type userKey struct{}

	store := kv.New(nil)
	defer store.Close()
	sessions := kv.NewSessions[login](store, nil)

	loggedIn := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			cookie, err := r.Cookie("id")
			if err != nil {
				http.Error(w, "log in first", http.StatusUnauthorized)
				return
			}
			l, err := sessions.Get(r.Context(), cookie.Value)
			if err != nil {
				http.Error(w, "log in again", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, l.User)))
		})
	}
	http.Handle("/account", loggedIn(http.NotFoundHandler()))
}
