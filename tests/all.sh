#!/bin/sh
# Runs every test, the lab beside all others, as it mostly waits; then those that failed once more, each alone: a machine that
# is busy is no fault of the program. One that fails again fails all; one that then passes is named at the end, as a test to
# mend. `make test` runs this, and says by CARGO which cargo, by RUST_TEST_THREADS how many tests at a time; the lab runs half
# as many again.
set -u
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM

# tests NICE NAME THREADS ARGUMENT...: keeps what they say, and how they end.
tests() {
    nice=$1 name=$2 at_a_time=$3
    shift 3
    { RUST_TEST_THREADS=$at_a_time $nice "${CARGO:-cargo}" test --locked --no-fail-fast "$@"; echo $? >"$folder/$name.status"; } \
        2>&1 | tee "$folder/$name.log"
}

threads=${RUST_TEST_THREADS:-$(nproc)}
others=$(ls tests/*.rs tests/*/main.rs | sed 's|^tests/||; s|/main\.rs$||; s|\.rs$||; /^lab$/d; s/^/--test /')
tests "nice -n 5" lab $((threads * 3 / 2)) --test lab &
# The lab is built first, so that it does not wait for the others.
until grep -qs '^ *Running' "$folder/lab.log" || [ -e "$folder/lab.status" ]; do sleep 1; done
tests "" others "$threads" --lib --bins $others
wait
[ "$(cat "$folder/lab.status" "$folder/others.status" | tr -d '\n')" != 00 ] || exit 0

# A program that broke off did not run all of its tests.
if grep -q "^  process didn't exit successfully" "$folder"/*.log; then
    echo "tests/all.sh: a test program broke off" >&2
    exit 1
fi
# A line for each: the program that holds it, and its name.
for part in lab others; do
    [ "$(cat "$folder/$part.status")" != 0 ] || continue
    awk '/^ *Running .*\(.*\)$/ { program = $NF; gsub(/[()]/, "", program) }
        /^test .* \.\.\. FAILED$/ { print program, $2 }' "$folder/$part.log" >"$folder/some"
    if ! [ -s "$folder/some" ]; then
        echo "tests/all.sh: something else than a test failed" >&2
        exit 1
    fi
    cat "$folder/some" >>"$folder/failed"
done
status=0
while read -r program name; do
    echo
    echo "*** Once more, alone: $name"
    if RUST_TEST_THREADS=1 "$program" --exact "$name" </dev/null; then
        echo "$name" >>"$folder/mend"
    else
        status=1
    fi
done <"$folder/failed"
if [ -s "$folder/mend" ]; then
    echo
    echo "*** These failed once and passed alone. They are tests to mend:"
    cat "$folder/mend"
fi
exit $status
