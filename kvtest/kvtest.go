// Package kvtest tests whether a [kv.Engine] keeps the contract of package kv,
// and helps to test code that uses a [kv.Store].
//
// Whoever writes an engine runs the suite on it:
//
//	func TestConformance(t *testing.T) {
//		kvtest.Run(t, kvtest.Harness{
//			Open: func(t *testing.T) *kv.Store { return kv.NewWithEngine(newEngine(t), nil) },
//		})
//	}
//
// Each case has a name and the sentence of the contract that it defends, which
// is printed when the case fails.
//
// Whoever writes code on a Store finds out with [Faulty] what that code does
// when the store fails, is slow, or does not say whether a write has happened.
package kvtest

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvrecipes/kv"
)

// Harness says how the suite gets at the stores under test, and in which points
// their engine differs from the one in memory. The zero value of every field but Open is
// the stricter one.
type Harness struct {
	// Open returns a store without keys. It is called once for each case, with
	// Virtual inside the case's bubble. The suite closes the store; what else
	// there is to clean up is for t.Cleanup.
	Open func(t *testing.T) *kv.Store

	// Peer returns another store on the data of s, as another process would
	// have it; the cases of the recipes let the two compete. The suite closes
	// it. nil: s itself.
	Peer func(t *testing.T, s *kv.Store) *kv.Store

	// Namespace, if it is not empty, is the namespace of the store in which the cases run.
	Namespace string

	// Virtual says that the engine's clock is package time's and that it does no
	// I/O: each case then runs in a bubble of testing/synctest, where deadlines
	// are met to the Resolution and waiting costs nothing. Without it, cases
	// wait until the engine's own clock says that the time has come.
	Virtual bool

	// Resolution of deadlines; 0: 1 ns.
	Resolution time.Duration

	// Unordered says that scans promise no order, that Range.Reverse, From and
	// To are [kv.ErrUnsupported], that the limit of a page is a hint and that a
	// key may come again on a later page.
	Unordered bool

	// OneSlot says that the keys of a transaction have to share a hash slot (what
	// is between braces in them), and that it fails with [kv.ErrCrossSlot] otherwise.
	OneSlot bool

	// BareEvents says that the events of deletion and expiry carry the key
	// alone, and that an EventPut may carry a newer entry than the write that caused it.
	BareEvents bool
}

// testCase is one promise of the contract.
type testCase struct {
	name     string
	contract string // the sentence that it defends, as the contract has it
	run      func(e *env)
	when     func(h Harness) bool // nil: always
}

// Run runs every case of the suite as a subtest of t. Use the -run flag of go test
// to choose among them.
func Run(t *testing.T, h Harness) {
	t.Helper()
	for _, c := range cases() {
		if c.when == nil || c.when(h) {
			t.Run(c.name, func(t *testing.T) { c.runIn(t, h) })
		}
	}
}

func (c testCase) runIn(t *testing.T, h Harness) {
	body := func(t *testing.T) {
		defer func() {
			if t.Failed() {
				t.Logf("the contract says: %s", c.contract)
			}
		}()
		c.run(newEnv(t, h))
	}
	if h.Virtual {
		synctest.Test(t, body)
	} else {
		body(t)
	}
}

func cases() []testCase {
	return slices.Concat(
		readCases, writeCases, conditionalCases, updateCases, counterCases,
		ttlCases, expiryCases, metadataCases, limitCases, errorCases, namespaceCases,
		batchCases, txnCases, scanCases, pageCases, watchCases,
		closeCases, byteCases, concurrencyCases,
		lockCases, rateLimitCases, idempotencyCases, guardedCases, sessionCases, flagCases,
	)
}

func ordered(h Harness) bool    { return !h.Unordered }
func unordered(h Harness) bool  { return h.Unordered }
func virtual(h Harness) bool    { return h.Virtual }
func fullEvents(h Harness) bool { return !h.BareEvents }
