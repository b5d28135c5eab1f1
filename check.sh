#!/usr/bin/env bash
# Every check of the project in one command. It needs Go, a C compiler (for the
# race detector) and the module proxy; what the tests of valkeykv need on top,
# they find or install themselves.
#
#   ./check.sh               everything, in order, until something fails
#   ./check.sh test fuzz     these steps alone
#   FUZZTIME=1m ./check.sh fuzz
#
# Steps: format modules vet staticcheck test readme examples fuzz bench

set -u
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1

all_steps="format modules vet staticcheck test readme examples fuzz bench"
example_limit=120 # seconds that one example may take

# A count of inputs, not a time: with a time, Go before 1.27 can fail a target
# that found nothing (https://go.dev/issue/75804).
fuzztime=${FUZZTIME:-10000x}

# A workspace around this folder must not change what is tested.
export GOWORK=off

scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
log=$scratch/log

# ---- What there is to check ------------------------------------------------

# modules prints the folder of every module, the root first; not lint, which has no packages, only a tool.
modules() {
	find . -name go.mod -not -path '*/.*/*' -not -path '*/testdata/*' -not -path './lint/*' |
		sed 's|/go.mod$||' | sort
}

# examples prints "module package" for every program in a folder under examples/.
examples() {
	for dir in $(modules); do
		go -C "$dir" list -f "$dir {{.Name}} {{.ImportPath}}" ./...
	done | sed -n 's|^\(.*\) main \(.*/examples/.*\)$|\1 \2|p'
}

# fuzz_targets prints "module package target" for every fuzz target.
fuzz_targets() {
	for dir in $(modules); do
		go -C "$dir" list -f '{{$p := .}}{{range .TestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}{{"\n"}}{{end}}' ./... |
			while read -r package file; do
				[ -n "$file" ] || continue
				sed -n "s|^func \(Fuzz[A-Za-z0-9_]*\)(.*|$dir $package \1|p" "$file"
			done
	done
}

# ---- The steps -------------------------------------------------------------
# Each runs in a subshell that ends at the first command that fails.

step_format() {
	find . -name '*.go' -not -path '*/.*/*' -exec "$(go env GOROOT)/bin/gofmt" -l {} + >"$log"
	if [ -s "$log" ]; then
		fail "not formatted: $(tr '\n' ' ' <"$log")"
	fi
}

# The root package stays small for those who import it: the standard library
# without net/http, and tidwall/btree.
step_modules() {
	local foreign
	for dir in $(modules) ./lint; do
		echo "  $dir: go mod tidy -diff"
		quietly go -C "$dir" mod tidy -diff
	done
	quietly go list -deps .
	! grep -qx net/http "$log" || fail "the root package imports net/http"
	foreign=$(go list -deps -f '{{if not .Standard}}{{.Module.Path}}{{end}}' . | sort -u | tr '\n' ' ')
	[ "$foreign" = "github.com/kvrecipes/kv github.com/tidwall/btree " ] || fail "the root package depends on: $foreign"
}

step_vet() {
	for dir in $(modules); do
		echo "  $dir"
		quietly go -C "$dir" vet ./...
	done
	echo "  . for windows and 32 bits, arm64, without assembly"
	GOOS=windows GOARCH=386 CGO_ENABLED=0 quietly go vet .
	GOARCH=arm64 CGO_ENABLED=0 quietly go vet .
	quietly go vet -tags purego .
}

step_staticcheck() {
	quietly go -C lint build -o "$scratch/staticcheck" honnef.co/go/tools/cmd/staticcheck
	for dir in $(modules); do
		echo "  $dir"
		(cd "$dir" && quietly "$scratch/staticcheck" ./...)
	done
}

# -count=1: a result from the cache would hide a test that fails now and then.
step_test() {
	for dir in $(modules); do
		echo "  $dir"
		go -C "$dir" test -race -count=1 -shuffle=on -timeout 8m ./... | sed '/\[no test files\]/d'
	done
}

# The programs and tests that stand whole in README.md, in a module of their own like a user's.
step_readme() {
	mkdir "$scratch/user"
	awk -v folder="$scratch/user" '
		/^```/ { inside = $0 == "```go"; file = ""; next }
		inside && file == "" { if (!/^package /) { inside = 0; next } file = folder "/" ++n ".go" }
		inside { print > file }' README.md
	sed 's|^module .*|module example.com/user|' go.mod >"$scratch/user/go.mod"
	go -C "$scratch/user" mod edit -require github.com/kvrecipes/kv@v0.0.0 -replace "github.com/kvrecipes/kv=$PWD"
	cp go.sum "$scratch/user"
	for file in "$scratch"/user/*.go; do
		echo "  $(head -n 1 "$file")"
		if grep -q '^func Test' "$file"; then
			mv "$file" "${file%.go}_test.go"
			quietly go -C "$scratch/user" test -mod=mod -count=1 "${file%.go}_test.go"
		else
			quietly go -C "$scratch/user" run -mod=mod "$file"
		fi
	done
}

step_examples() {
	local begun
	examples >"$scratch/examples"
	[ -s "$scratch/examples" ] || fail "found no examples"
	while read -r dir package; do
		begun=$SECONDS
		quietly go -C "$dir" build -o "$scratch/example" "$package"
		within "$example_limit" "$scratch/example"
		echo "  ${package#github.com/kvrecipes/kv/} ($((SECONDS - begun)) s)"
	done <"$scratch/examples"
}

step_fuzz() {
	fuzz_targets >"$scratch/targets"
	[ -s "$scratch/targets" ] || fail "found no fuzz targets"
	while read -r dir package target; do
		echo "  $package $target"
		quietly go -C "$dir" test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" "$package"
	done <"$scratch/targets"
}

# Once each, so that no benchmark rots. Times never decide.
step_bench() {
	for dir in $(modules); do
		echo "  $dir"
		quietly go -C "$dir" test -short -run '^$' -bench . -benchtime 1x -timeout 8m ./...
	done
}

# ---- How they run ----------------------------------------------------------

# quietly runs a command and shows what it printed only if it fails.
quietly() {
	local status=0
	"$@" >"$log" 2>&1 </dev/null || status=$?
	[ "$status" = 0 ] || show "$status" "$@"
	return "$status"
}

# within runs a command quietly and ends it when it takes longer than so many seconds.
within() {
	local limit=$1 pid watchdog status=0
	shift
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	(
		for ((i = 0; i < limit; i++)); do sleep 1; done
		echo "no end after $limit s" >>"$log"
		kill -9 "$pid"
	) >/dev/null 2>&1 &
	watchdog=$!
	wait "$pid" 2>/dev/null || status=$?
	kill "$watchdog" 2>/dev/null || true
	wait "$watchdog" 2>/dev/null || true
	[ "$status" = 0 ] || show "$status" "$@"
	return "$status"
}

show() {
	local status=$1
	shift
	tail -n 200 "$log"
	echo "  exit status $status: $*"
}

fail() {
	echo "  $1"
	exit 1
}

need() {
	command -v "$1" >/dev/null 2>&1 && return
	echo "check.sh: $2" >&2
	exit 1
}

need go "Go is not on the PATH: see https://go.dev/dl"
cc=$(go env CC)
need "${cc%% *}" "no C compiler (${cc%% *}), which the race detector needs: install gcc or clang"

steps=${*:-$all_steps}
for name in $steps; do
	case " $all_steps " in
	*" $name "*) ;;
	*) echo "check.sh: no step called $name; the steps are: $all_steps" >&2 && exit 2 ;;
	esac
done

passed=0
total=$(wc -w <<<"$steps" | tr -d ' ')
echo "$(go version), $total steps"
for name in $steps; do
	begun=$SECONDS
	printf '\n[%d/%d] %s\n' $((passed + 1)) "$total" "$name"
	(
		set -e -o pipefail
		"step_$name"
	)
	status=$?
	if [ "$status" != 0 ]; then
		printf '\n%s failed after %d s. Alone: ./check.sh %s\n' "$name" $((SECONDS - begun)) "$name"
		echo "$passed passed, 1 failed"
		exit 1
	fi
	passed=$((passed + 1))
	echo "  $((SECONDS - begun)) s"
done
printf '\nAll checks passed in %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
echo "$passed passed, 0 failed"
