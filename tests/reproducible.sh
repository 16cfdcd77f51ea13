#!/bin/sh
# The same source gives the same program, wherever it is built, so that anybody can check what is installed: builds a copy
# of the source in a folder of another length, and compares it with target/index.cgi, which `make` left.
# `make reproducible` runs this, and says by MAKE which make built the first.
set -eu
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
copy="$folder/a-folder-of-another-length"
mkdir "$copy"
# All but what is built and what git keeps.
tar --create --exclude=./target --exclude=./.git --exclude=./fuzz . | tar --extract --directory "$copy"

# make gives COMMIT to both builds: the copy has no git.
case $(target/index.cgi --version) in
*"${COMMIT:-}"*) ;;
*) echo "make: target/index.cgi does not say that it was built from $COMMIT" >&2; exit 1 ;;
esac

# The tests that run meanwhile come first.
nice -n 19 ${MAKE:-make} --silent -C "$copy" all
if ! cmp target/index.cgi "$copy/target/index.cgi"; then
    ls -l target/index.cgi "$copy/target/index.cgi"
    echo "make: the same source gave another program in another folder" >&2
    exit 1
fi
echo "The same source gave the same program in another folder."

# And the same packages. That of Debian is made here only where it is older than the program; lintian saw it there.
for package in dist $(test ! -e target/bartleby.deb || echo deb); do
    for folder in . "$copy"; do
        [ $package$folder != deb. ] || [ target/index.cgi -nt target/bartleby.deb ] || continue
        ${MAKE:-make} --silent -C "$folder" --old-file=all LINTIAN=true "$package" >"$folder/target/$package.log" 2>&1 ||
            { cat "$folder/target/$package.log"; exit 1; }
    done
done
for file in $(cd target && ls bartleby-*.tar.gz bartleby.deb 2>/dev/null); do
    cmp "target/$file" "$copy/target/$file" || exit 1
    echo "... and the same $file."
done
