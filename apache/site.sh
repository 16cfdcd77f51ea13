#!/bin/sh
# The part of `make install` and `make uninstall` that touches the machine's own set-up: the web server's snippet and the
# state directory. The Makefile calls it, with its variables in the environment.
#
# An administrator's file is never overwritten. A pristine copy of the snippet last installed is
# kept beside the program: as long as the installed one equals it, nobody edited it.
set -eu

destdir=${DESTDIR:-} etc=${SYSCONFDIR:-/etc}
prefix=${PREFIX:?} www=${WWWDIR:?} state=${STATEDIR:?}
here=$(dirname "$0")/..

say() { echo "bartleby: $*"; }

# Sets `server`: the one that is named, or the first that is there.
find_server() {
    server=${WEBSERVER:-}
    [ -z "$server" ] || return 0
    if [ -n "${APACHE:-}" ] || [ -d "$destdir/etc/apache2" ] || [ -d "$destdir/etc/httpd" ]; then
        server=apache
        return
    fi
    for server in lighttpd nginx caddy; do
        [ ! -d "$destdir/etc/$server" ] || return 0
    done
    server=none
}

# Sets `site`, Apache's layout, and `snippet`.
find_apache() {
    site=${APACHE:-}
    if [ -z "$site" ]; then
        if [ -d "$destdir/etc/apache2" ]; then site=debian
        elif [ -d "$destdir/etc/httpd" ]; then site=redhat
        else site=none
        fi
    fi
    case $site in
    debian) snippet=$destdir/etc/apache2/conf-available/bartleby.conf ;;
    redhat) snippet=$destdir/etc/httpd/conf.d/bartleby.conf ;;
    none) snippet= server=none ;;
    *) say "APACHE=$site: it must be debian, redhat or none" >&2; exit 2 ;;
    esac
}

# Sets where the snippet of `server` comes from (`source`), where the server wants it (`snippet`; empty where there is
# none), and where its pristine copy is kept.
find_snippet() {
    source=$here/$server/bartleby.conf pristine=$destdir$prefix/share/bartleby/bartleby-$server.conf site=
    case $server in
    apache) find_apache; pristine=$destdir$prefix/share/bartleby/bartleby.conf ;;
    lighttpd) snippet=$destdir/etc/lighttpd/conf-available/90-bartleby.conf ;;
    nginx) snippet=$destdir/etc/nginx/snippets/bartleby.conf ;;
    caddy) source=$here/caddy/bartleby.caddyfile snippet=$destdir/etc/caddy/bartleby.caddyfile ;;
    none) snippet= ;;
    *) say "WEBSERVER=$server: it must be apache, lighttpd, nginx, caddy or none" >&2; exit 2 ;;
    esac
}

# What was found to be a name, one a line, as a regular expression.
patterns() {
    tr ',;: \t' '[\n*]' | grep -Ex '[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+' | grep -vEx '[0-9.]+' | sort -u | sed 's/\./\\./g'
}

# The domains that the mail server relays, as far as its configuration names them.
relayed() {
    if command -v postconf >/dev/null; then
        for word in $(postconf -xh relay_domains | tr ',' ' '); do
            case $word in
            *:/*) postmap -s "$word" | cut -f1 ;;
            *) echo "$word" ;;
            esac
        done
    fi
    cat "$etc/mail/relay-domains" || :
    sed -n "s/^dc_relay_domains='\(.*\)'$/\1/p" "$etc/exim4/update-exim4.conf.conf" || :
}

# The rule for the names that this machine can know: its own full name, its mail server's, and names below the domains
# whose mail is kept here. None for a package (DESTDIR), which is for other machines.
name_rule() {
    [ -z "$destdir" ] || return 0
    own=$({ hostname -f; postconf -xh myhostname; exim4 -bP primary_hostname | sed 's/.*= *//'; } 2>/dev/null | patterns)
    below=$(relayed 2>/dev/null | patterns | sed 's/^/([^:]+\\.)?/')
    names=$(printf '%s\n' "$own" "$below" | sed '/^$/d' | paste -sd '|')
    [ -z "$names" ] || printf '%s\n' "            Require expr \"%{HTTP_HOST} =~ m#^($names)\\.?(:[0-9]*)?\$#i\""
}

install_snippet() {
    mkdir -p "${snippet%/*}" "${pristine%/*}"
    # In front of the line that shows how to add another one.
    rule=$(name_rule) awk '/^ *#Require expr/ && ENVIRON["rule"] { print ENVIRON["rule"] } { print }' "$source" |
        sed "s|/var/www/bartleby|$www|g" > "$pristine.now"
    chmod 644 "$pristine.now"
    if [ ! -e "$snippet" ] || cmp -s "$snippet" "$pristine.now" || cmp -s "$snippet" "$pristine"; then
        cp -p "$pristine.now" "$snippet"
        rm -f "$snippet.new"
        say "installed $snippet"
    elif cmp -s "$pristine" "$pristine.now" && [ ! -e "$snippet.new" ]; then
        say "kept $snippet as you edited it"
    else
        cp -p "$pristine.now" "$snippet.new"
        say "kept $snippet as you edited it; this version's is beside it as ${snippet##*/}.new"
    fi
    mv -f "$pristine.now" "$pristine"
}

# The file that has the snippet's name in a line of its own, if there is one: the web server would not start without it.
included() {
    case $server in
    nginx | caddy) grep -rlE "^[^#]*(include|import) .*${snippet##*/}" "$destdir/etc/$server" 2>/dev/null | head -n 1 ;;
    esac
}

uninstall_snippet() {
    cmp -s "$snippet.new" "$pristine" && rm -f "$snippet.new"
    user=$(included)
    if [ ! -e "$snippet" ]; then
        :
    elif [ -n "$user" ]; then
        say "left $snippet, because $user includes it: take that line away, then the file, and reload $server"
    elif cmp -s "$snippet" "$pristine"; then
        # The link that enabled it would lead nowhere.
        case $server in
        apache) [ "$site" != debian ] || remove_link apache2/conf-enabled/bartleby.conf ;;
        lighttpd) remove_link lighttpd/conf-enabled/90-bartleby.conf ;;
        esac
        rm -f "$snippet"
        say "removed $snippet: reload $server"
    else
        say "left $snippet, because you edited it: remove it yourself and reload $server"
    fi
    rm -f "$pristine"
    rmdir "${pristine%/*}" 2>/dev/null || true
}

remove_link() {
    [ ! -L "$destdir/etc/$1" ] || rm -f "$destdir/etc/$1"
}

# The user that the web server runs CGI programs as, if this machine has it.
web_user() {
    for user in www-data apache; do
        if id -u "$user" >/dev/null 2>&1; then echo "$user"; return; fi
    done
}

install_state() {
    user=$(web_user)
    [ -z "$destdir" ] && [ -n "$user" ] || return 0
    install -d -m 0700 -o "$user" -g "$(id -gn "$user")" "$state"
    say "made $state for $user"
}

uninstall_state() {
    [ -z "$destdir" ] || return 0
    # The second is root's own, where it has run the program.
    for folder in "$state" "$state-root"; do
        [ ! -d "$folder" ] || rmdir "$folder" 2>/dev/null ||
            say "left $folder, which holds the log of flushes: rm -r $folder"
    done
}

next_steps() {
    say "next:"
    case $server-$site in
    apache-debian) echo "    a2enmod cgid && a2enconf bartleby && systemctl restart apache2" ;;
    apache-redhat)
        echo "    systemctl restart httpd"
        echo "  and where SELinux is enforcing, before that:"
        echo "    semanage fcontext -a -t httpd_sys_script_exec_t '$www/index\\.cgi'"
        echo "    semanage fcontext -a -t httpd_sys_rw_content_t '$state(/.*)?'"
        echo "    restorecon -Rv $www $state"
        ;;
    lighttpd-) echo "    lighty-enable-mod bartleby && systemctl restart lighttpd" ;;
    nginx- | caddy-) echo "    what the first lines of ${snippet#"$destdir"} say: fcgiwrap, and a line in the server's own configuration" ;;
    *) echo "    no web server found that there is a snippet for: they are in $prefix/share/doc/bartleby, by their names" ;;
    esac
    echo "    who may see the page says ${snippet:-that snippet} (only this machine until you add yours)"
    user=$(web_user)
    [ "$server" != apache ] || echo "  (a reload does not start the daemon of mod_cgid: the page would be a 503)"
    echo "    then see whether all is in place, the web server too:"
    echo "    sudo -u ${user:-www-data} bartleby doctor --web http://localhost/bartleby/"
    echo "    where it says that only root may list or run the queue, one rule is enough: $prefix/share/doc/bartleby/examples/sudoers"
}

case ${1:-} in
install)
    find_server
    find_snippet
    [ -z "$snippet" ] || install_snippet
    install_state
    next_steps
    ;;
names)
    name_rule
    ;;
uninstall)
    for server in apache lighttpd nginx caddy; do
        find_snippet
        [ ! -e "$pristine" ] || uninstall_snippet
    done
    uninstall_state
    ;;
*) echo "usage: site.sh install|names|uninstall" >&2; exit 2 ;;
esac
