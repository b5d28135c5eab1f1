package kvtest

import (
	"fmt"

	"github.com/kvrecipes/kv"
)

// follow returns the flags of a store, whose complaints count for nothing.
func (e *env) follow(s *kv.Store) *kv.Flags {
	f, err := kv.NewFlags(s, &kv.FlagsOptions{OnError: func(string, error) {}})
	e.NoError(err)
	e.t.Cleanup(func() { _ = f.Close() })
	return f
}

var flagCases = []testCase{
	{
		name:     "Flags",
		contract: "NewFlags keeps a local copy fresh by Watch: an update shows in every process within the watch's delay; unknown is off; after Close the last known.",
		run: func(e *env) {
			f, other := e.follow(e.store), e.follow(e.peer())
			e.False(f.Enabled("new", "unit"))
			e.NoError(f.Set(e.ctx, "new", "on"))
			for _, flags := range []*kv.Flags{f, other} {
				e.eventually(func() bool { return flags.Enabled("new", "unit") })
			}
			e.True(e.follow(e.peer()).Enabled("new", "unit"), "a flag that was there before")
			e.NoError(other.Set(e.ctx, "new", "off"))
			e.eventually(func() bool { return !f.Enabled("new", "unit") })
			e.NoError(f.Set(e.ctx, "new", "on"))
			e.eventually(func() bool { return other.Enabled("new", "unit") })
			_, err := e.store.Delete(e.ctx, kv.Key("feature", "new"))
			e.NoError(err)
			e.eventually(func() bool { return !f.Enabled("new", "unit") && !other.Enabled("new", "unit") })
			e.NoError(f.Set(e.ctx, "new", "on"))
			e.eventually(func() bool { return f.Enabled("new", "unit") })
			e.NoError(f.Close())
			e.True(f.Enabled("new", "unit"))
		},
	},
	{
		name:     "Flags/percentage",
		contract: "\"30\" is 30 % of units: a unit keeps its answer while the percentage grows.",
		run: func(e *env) {
			f := e.follow(e.store)
			on := map[int]bool{}
			for _, percent := range []int{0, 10, 30, 70, 100} {
				e.NoError(f.Set(e.ctx, "new", fmt.Sprint(percent)))
				e.eventually(func() bool { return percent < 100 || f.Enabled("new", "unit 0") })
				count := func() (n int) {
					for unit := range 2000 {
						if f.Enabled("new", fmt.Sprint("unit ", unit)) {
							n++
						}
					}
					return n
				}
				e.eventually(func() bool { n := count(); return n >= percent*20-150 && n <= percent*20+150 })
				for unit := range 2000 {
					enabled := f.Enabled("new", fmt.Sprint("unit ", unit))
					e.False(on[unit] && !enabled, "a unit loses the feature while the percentage grows")
					on[unit] = enabled
				}
			}
		},
	},
	{
		name:     "Flags/bad values",
		contract: "Set: \"on\", \"off\", \"0\"..\"100\" with up to three decimals; else ErrInvalidFlag. Garbage in a flag is off.",
		run: func(e *env) {
			f := e.follow(e.store)
			for _, value := range []string{"on", "off", "0", "100", "12.5", "0.001", "99.999"} {
				e.NoErrorf(f.Set(e.ctx, "new", value), "%q", value)
			}
			e.NoError(f.Set(e.ctx, "new", "on"))
			e.eventually(func() bool { return f.Enabled("new", "unit") })
			for _, value := range []string{"", "On", "101", "-1", "0.0001", "1e1", "on ", "true", "50%", "NaN"} {
				e.ErrorIsf(f.Set(e.ctx, "new", value), kv.ErrInvalidFlag, "%q", value)
			}
			e.True(f.Enabled("new", "unit"))
			e.set(kv.Key("feature", "new"), "garbage", kv.NoExpiry)
			e.eventually(func() bool { return !f.Enabled("new", "unit") })
		},
	},
}
