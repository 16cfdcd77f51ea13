# Builds, tests and installs Bartleby: `make help` lists the targets.
#
# `make` needs cargo and a C compiler. `sudo make install` needs neither: it installs what `make` left.

# The machine to build for; `rustc -vV` names this one. With `rustup target add` done:
#   make TARGET=x86_64-unknown-linux-musl
#   make TARGET=aarch64-unknown-linux-musl CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=...
# (?= and = ask rustc only where TARGET is used, so that `make install` works without it.)
TARGET ?= $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')

# What it is built from, for --version: a commit, or nothing where there is no git.
COMMIT ?= $(shell git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null)
export COMMIT

# Where things go. DESTDIR is put before each, for packages.
PREFIX   ?= /usr/local
WWWDIR   ?= /var/www/bartleby
STATEDIR ?= /var/lib/bartleby
DESTDIR  ?=
# Whose snippet is installed: apache, lighttpd, nginx, caddy or none; default: what is there.
WEBSERVER ?=
# In whose layout that of Apache is: debian, redhat or none; default: found out.
APACHE   ?=

CARGO   ?= cargo
# The program that is installed, run and measured.
PROGRAM ?= target/index.cgi

# Static, so that one file works on every Linux of its kind of processor. The folders' names are
# left out, so that the same source gives the same program everywhere.
STATIC = -C target-feature=+crt-static \
	--remap-path-prefix=$(CURDIR)=/bartleby \
	--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo

# Only small functions are put where they are called: LLVM's own limit (225) makes the program a tenth larger, and no
# quicker as far as can be measured. A panic ends the program, so there is nothing in it for unwinding its stack.
SMALL = -C llvm-args=-inline-threshold=40 -C link-arg=-Wl,--no-eh-frame-hdr \
	-C link-arg=-Wl,-T,$(CURDIR)/.cargo/no-unwind.ld

# A bit for an address that is to be relocated, rather than 24 bytes, where the linker and the C library know that (lld or
# binutils 2.38, and glibc 2.36). An older library would crash at the start, so it is tried on an empty program.
PACKED = -C link-arg=-Wl,-z,pack-relative-relocs

# What of SQLite is not used is left out: the log of flushes asks for a row or two.
SQLITE = -DSQLITE_OMIT_LOAD_EXTENSION -DSQLITE_OMIT_JSON -USQLITE_ENABLE_FTS3 -USQLITE_ENABLE_FTS3_PARENTHESIS \
	-USQLITE_ENABLE_FTS5 -USQLITE_ENABLE_RTREE -USQLITE_ENABLE_DBSTAT_VTAB -USQLITE_ENABLE_STAT4 -USQLITE_SOUNDEX \
	$(SQLITE_POOLS)

# Nor the memory that it lays out in advance, 210 KB, of which each page is touched whenever a view opens the database.
SQLITE_POOLS = -DSQLITE_OMIT_LOOKASIDE -DSQLITE_DEFAULT_PCACHE_INITSZ=0

# What is installed as documentation, so that the links of all documents lead somewhere: these, and the folders that
# README.md names, all but what is for `make run` and for the installation itself.
DOCUMENTS = README.md ARCHITECTURE.md CONTRIBUTING.md SECURITY.md CHANGELOG.md LICENSE
NO_DOCS = apache/site.sh examples/serve examples/sample-queue

# Web servers, each a folder with its snippet.
SERVERS = apache lighttpd nginx caddy busybox

# Below $(PREFIX)/share.
MANUALS = man/man8/bartleby.8 man/man5/bartleby.toml.5
COMPLETIONS = bash-completion/completions/bartleby zsh/site-functions/_bartleby \
	fish/vendor_completions.d/bartleby.fish

# Where the completion comes from that is installed as $1: bash wants its own without an ending.
completion = completions/$(if $(filter bash-completion/%,$1),bartleby.bash,$(notdir $1))

INSTALL_SITE = DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' WWWDIR='$(WWWDIR)' STATEDIR='$(STATEDIR)' \
	WEBSERVER='$(WEBSERVER)' APACHE='$(APACHE)' sh apache/site.sh

.PHONY: all needs run test reproducible systems lint deny fuzz bench install uninstall deb rpm dist clean help

# What the build can't do without, looked at first: cargo's and rustc's own words for it don't say what to install. The
# C library for static programs is a package of its own on Fedora.
needs:
	@for tool in $(CARGO) rustc; do command -v "$$tool" >/dev/null || { \
	    echo "make: $$tool is missing: Rust 1.89 or newer builds this." >&2; \
	    echo "  Debian 13, Ubuntu: apt install rustup && rustup default stable" >&2; \
	    echo "  Fedora:            dnf install cargo" >&2; \
	    echo "  elsewhere:         https://rustup.rs" >&2; exit 1; }; done
	@mkdir -p target; printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' | \
	    cc $(if $(findstring -gnu,$(TARGET)),-static) -x c - -o target/needs 2>target/needs.log || { \
	    echo "make: there is no C compiler (cc) that can link a static program:" >&2; sed 's/^/  /' target/needs.log >&2; \
	    echo "  Debian, Ubuntu: apt install gcc libc6-dev" >&2; \
	    echo "  Fedora:         dnf install gcc glibc-static" >&2; rm -f target/needs.log; exit 1; }; \
	    rm -f target/needs target/needs.log

# cargo knows what is up to date, so it is always asked. It refuses a program called "index.cgi",
# hence the copy. The linker says nothing when it could not link statically: look.
all: needs ## build target/index.cgi, static and stripped (the default)
	@mkdir -p target; packed=; \
	if echo 'fn main() {}' | rustc --target $(TARGET) $(STATIC) $(PACKED) -o target/packed - 2>/dev/null && \
	    target/packed 2>/dev/null; then packed='$(PACKED)'; fi; rm -f target/packed; \
	BARTLEBY_COMMIT='$(COMMIT)' RUSTFLAGS="$(RUSTFLAGS) $(STATIC) $(SMALL) $$packed" LIBSQLITE3_FLAGS="$(SQLITE)" $(CARGO) build --release --locked \
	    --target-dir target --target $(TARGET) --package bartleby
	@if readelf --version >/dev/null 2>&1; then \
	    if readelf -lW target/$(TARGET)/release/bartleby | grep INTERP; then \
	        echo "make: the program is not static: it asks for the loader above" >&2; exit 1; \
	    fi; \
	else \
	    echo "make: no readelf (binutils), so it was not checked whether the program is static" >&2; \
	fi
	@install -m 755 target/$(TARGET)/release/bartleby target/index.cgi
	@ls -l target/index.cgi

run: all ## serve the page at http://127.0.0.1:8025/ (with a sample queue where there is no mail server)
	$(CARGO) run --quiet --locked --package bartleby-serve -- $(PROGRAM)

# How many tests run at the same time: more than there are processors, as most of them wait, for a mail server or for
# somebody's patience to end.
TEST_THREADS ?= $(shell echo $$((3 * $$(nproc))))

# make's targets at the same time: the linker takes a minute of one processor, and the tests mostly wait. (With -j, cargo
# and rustc would ask for a place among make's jobs.)
beside = pids=; for target in $1; do $(MAKE) --no-print-directory -o all $$target & pids="$$pids $$!"; done; status=0; \
	for pid in $$pids; do wait $$pid || status=1; done; exit $$status

test: ## check and test everything; as root on Debian also against real mail servers
	@if [ "$$(id -u)" != 0 ] || [ ! -e /etc/debian_version ]; then \
	    echo; echo "*** NOT root on Debian: the tests against real mail servers and a real Apache are SKIPPED ***"; echo; \
	fi
	@$(call beside,checked built)
	@test "$$(wc -c <'$(PROGRAM)')" -le 4718592 || { echo "make: $(PROGRAM) is larger than 4.5 MiB" >&2; exit 1; }
	@sh tests/tools.sh $(MAKE) --no-print-directory packaged
	@sh tests/tools.sh sh -c '$(call beside,tested reproducible)'

# The parts of `make test`.
.PHONY: checked built packaged tested
checked: lint deny

built:
	@$(MAKE) --no-print-directory all
	@sh tests/tools.sh true

packaged:
	@if command -v dpkg-buildpackage >/dev/null && command -v dh >/dev/null; then $(MAKE) --no-print-directory -o all deb; \
	else \
	    echo; echo "*** no dpkg-dev or debhelper: the Debian package is NOT built and NOT tested ***"; echo; \
	    [ "$$BARTLEBY_LAB" != required ]; \
	fi

tested:
	@RUST_TEST_THREADS=$(TEST_THREADS) CARGO='$(CARGO)' sh tests/all.sh

reproducible: all ## check that a copy of the source in another folder gives the same program
	@MAKE='$(MAKE)' sh tests/reproducible.sh

lint: ## check the formatting, and clippy and the documentation without a warning
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked

# Other systems on which the program is to run. A check compiles no C, so SQLite takes no compiler for them.
SYSTEMS = x86_64-unknown-linux-musl aarch64-unknown-linux-gnu

systems: ## check that it compiles for musl and for ARM (rustup brings their std)
	@for system in $(SYSTEMS); do \
	    if [ ! -d "$$(rustc --print sysroot)/lib/rustlib/$$system/lib" ] && ! rustup target add $$system; then \
	        echo; echo "*** no std for $$system: whether it compiles there is NOT checked ***"; echo; continue; \
	    fi; \
	    echo "$(CARGO) check --target $$system"; \
	    CC=true AR=true $(CARGO) check --quiet --locked --package bartleby --bins --target $$system || exit 1; \
	done

# Where cargo-deny keeps what is known of broken crates.
ADVISORIES = $(or $(CARGO_HOME),$(HOME)/.cargo)/advisory-dbs

# It is built quickly rather than quick where it is missing.
deny: export PATH := $(PATH):$(CURDIR)/target/tools/bin
deny: ## check the crates: licences, sources, duplicates, advisories (installs cargo-deny into target/tools where it is missing)
	@command -v cargo-deny >/dev/null || $(CARGO) install --quiet --debug --locked --root target/tools cargo-deny || true
	@if ! $(CARGO) deny --version >/dev/null 2>&1; then \
	    echo; echo "*** no cargo-deny: the crates are NOT checked ***"; echo; \
	    [ "$$BARTLEBY_LAB" != required ]; exit; \
	fi; \
	$(CARGO) deny --locked check licenses bans sources || exit 1; \
	if $(CARGO) deny --locked fetch db >/dev/null 2>&1 || ls $(ADVISORIES)/*/crates >/dev/null 2>&1; then \
	    $(CARGO) deny --locked check --disable-fetch advisories; \
	else \
	    echo; echo "*** the advisory database can't be had: advisories are NOT checked ***"; echo; \
	fi

# A target of fuzz/, and for how long, in seconds.
TARGETS = postfix sendmail exim opensmtpd query environment configuration date as_root rehearsal
SECONDS ?= 60

fuzz: ## hunt for bytes that break a parser: make fuzz [SECONDS=60] [TARGETS=postfix] (needs cargo-fuzz and nightly)
	for target in $(TARGETS); do \
	    mkdir -p fuzz/corpus/$$target; \
	    seeds=tests/fixtures/$$target; [ -d $$seeds ] || seeds=tests/properties/seeds/$$target; \
	    $(CARGO) +nightly fuzz run -s none $$target fuzz/corpus/$$target $$seeds -- \
	        -max_total_time=$(SECONDS) -timeout=20 -rss_limit_mb=1024 || exit 1; \
	done

bench: all ## measure against the lister alone and a Perl script (and BEFORE=old/index.cgi): prints ratios
	$(CARGO) bench --locked --bench queue -- $(if $(BEFORE),--before $(BEFORE)) $(PROGRAM)
	@if [ "$$(id -u)" != 0 ] || [ ! -e /etc/debian_version ]; then \
	    echo; echo "*** NOT root on Debian: a real Postfix queue is NOT measured ***"; echo; exit; \
	fi; \
	bench=$$($(CARGO) bench --locked --bench queue --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\)).*/\1/p'); \
	BARTLEBY_BENCH="$$PWD/$$bench" BARTLEBY_CGI="$$PWD/$(PROGRAM)" \
	    $(CARGO) test --quiet --locked --test lab -- --ignored --exact --nocapture a_real_postfix_queue

# The command line is a copy, not a link into the document root: root runs it, and who may write there must not decide
# what that is. The earlier link is replaced.
install: ## install what `make` built, and the web server's snippet (as root; PREFIX, WWWDIR, DESTDIR, WEBSERVER)
	@test -f '$(PROGRAM)' || { echo "make install: no $(PROGRAM): run make first (not as root)" >&2; exit 1; }
	install -d '$(DESTDIR)$(WWWDIR)' '$(DESTDIR)$(PREFIX)/sbin'
	install -m 755 '$(PROGRAM)' '$(DESTDIR)$(WWWDIR)/index.cgi.tmp'
	mv -f '$(DESTDIR)$(WWWDIR)/index.cgi.tmp' '$(DESTDIR)$(WWWDIR)/index.cgi'
	install -m 755 '$(PROGRAM)' '$(DESTDIR)$(PREFIX)/sbin/bartleby.tmp'
	mv -fT '$(DESTDIR)$(PREFIX)/sbin/bartleby.tmp' '$(DESTDIR)$(PREFIX)/sbin/bartleby'
	rm -rf '$(DESTDIR)$(PREFIX)/share/doc/bartleby'
	install -d '$(DESTDIR)$(PREFIX)/share/doc/bartleby'
	cp -R $(DOCUMENTS) $(SERVERS) docs examples man '$(DESTDIR)$(PREFIX)/share/doc/bartleby/'
	cd '$(DESTDIR)$(PREFIX)/share/doc/bartleby' && rm -rf $(NO_DOCS)
	chmod -R u=rwX,go=rX '$(DESTDIR)$(PREFIX)/share/doc/bartleby'
	install -d $(foreach folder,$(dir $(MANUALS) $(COMPLETIONS)),'$(DESTDIR)$(PREFIX)/share/$(folder)')
	$(foreach file,$(MANUALS),install -m 644 man/$(notdir $(file)) '$(DESTDIR)$(PREFIX)/share/$(file)' && )true
	$(foreach file,$(COMPLETIONS),install -m 644 $(call completion,$(file)) '$(DESTDIR)$(PREFIX)/share/$(file)' && )true
	@$(INSTALL_SITE) install

uninstall: ## take away what `make install` put there, but no file that you edited
	@$(INSTALL_SITE) uninstall
	rm -f '$(DESTDIR)$(PREFIX)/sbin/bartleby' '$(DESTDIR)$(WWWDIR)/index.cgi'
	rm -rf '$(DESTDIR)$(PREFIX)/share/doc/bartleby'
	rm -f $(foreach file,$(MANUALS) $(COMPLETIONS),'$(DESTDIR)$(PREFIX)/share/$(file)')
	@rmdir '$(DESTDIR)$(WWWDIR)' 2>/dev/null || true

# What a package is made from: everything but what was built, and the program.
PACKAGED = target/package
define source_with_program
	rm -rf $(PACKAGED)
	mkdir -p $(PACKAGED)/bartleby/target
	tar --create --exclude=./target --exclude=./.git --exclude=./fuzz . | tar --extract --directory $(PACKAGED)/bartleby
	cp $(PROGRAM) $(PACKAGED)/bartleby/target/index.cgi
endef

LINTIAN ?= lintian

deb: all ## build target/bartleby.deb (needs debhelper)
	$(source_with_program)
	cd $(PACKAGED)/bartleby && dpkg-buildpackage --build=binary --no-sign --no-check-builddeps
	mv $(PACKAGED)/bartleby_*.deb target/bartleby.deb
	rm -rf $(PACKAGED)
	@if $(LINTIAN) --version >/dev/null 2>&1; then $(LINTIAN) --fail-on error --allow-root target/bartleby.deb; \
	else echo "make: no lintian, so it was not checked whether the package is as Debian wants it" >&2; fi
	@ls -l target/bartleby.deb

# For Fedora and Red Hat: the program in a place that its policy of SELinux knows nothing of, so rpm/post says what it is.
RPM = $(PACKAGED)/rpm

rpm: all ## build target/bartleby.rpm (needs cargo-generate-rpm)
	@$(CARGO) generate-rpm --version >/dev/null 2>&1 || { \
	    echo "make rpm: no cargo-generate-rpm: cargo install --locked cargo-generate-rpm (it takes some minutes)" >&2; exit 1; }
	rm -rf $(PACKAGED)
	$(MAKE) --no-print-directory install DESTDIR=$(CURDIR)/$(RPM) PREFIX=/usr WWWDIR=/usr/libexec/bartleby WEBSERVER=apache APACHE=redhat
	rm -r $(RPM)/usr/share/bartleby $(RPM)/usr/share/doc/bartleby/man
	install -d $(RPM)/usr/lib/systemd/system
	cp examples/bartleby-watch.service examples/bartleby-watch.timer $(RPM)/usr/lib/systemd/system/
	grep -rlE '/usr/local/|www-data' $(RPM)/usr/share/doc/bartleby/examples $(RPM)/usr/share/man $(RPM)/usr/lib | \
	    xargs sed -i 's|/usr/local/|/usr/|g; s/www-data/apache/g'
	$(CARGO) generate-rpm --target $(TARGET) --output target/bartleby.rpm
	rm -rf $(PACKAGED)
	@ls -l target/bartleby.rpm

# An archive for machines without a compiler: what `make install` takes, and the Makefile, so that `sudo make install` is
# all that is left to do. The same source gives the same archive: its files are as old as the release.
DIST = bartleby-$(VERSION)-$(firstword $(subst -, ,$(TARGET)))-linux
RELEASED = $(shell date --date="$$(sed -n 's/^ -- .*>  //p' debian/changelog | head -n 1)" +%s)
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

dist: all ## build target/bartleby-VERSION-PROCESSOR-linux.tar.gz, with its checksum
	rm -rf $(PACKAGED)
	mkdir -p $(PACKAGED)/$(DIST)/target
	cp -R Makefile $(DOCUMENTS) $(SERVERS) docs examples man completions $(PACKAGED)/$(DIST)/
	cp $(PROGRAM) $(PACKAGED)/$(DIST)/target/index.cgi
	chmod -R u=rwX,go=rX $(PACKAGED)/$(DIST)
	tar --create --sort=name --mtime=@$(or $(SOURCE_DATE_EPOCH),$(RELEASED)) --owner=0 --group=0 --numeric-owner --directory $(PACKAGED) $(DIST) | \
	    gzip --no-name >target/$(DIST).tar.gz
	rm -rf $(PACKAGED)
	cd target && sha256sum $(DIST).tar.gz >$(DIST).tar.gz.sha256
	@ls -l target/$(DIST).tar.gz

clean: ## remove everything that was built
	$(CARGO) clean

help: ## print this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14
