#!/bin/sh
# Makes a backup mail server (backup MX) with Bartleby's page out of a fresh Debian 12 or 13. As root:
#
#   sh examples/setup.sh --domain example.com --primary mx1.example.com --recipients FILE
#
# FILE has every address of that domain that the primary knows, one a line. It shows all that it would do, then asks
# once; without a terminal it only shows, unless --yes is given. No file is overwritten: one that is there and differs
# stops it before anything is changed. A second run changes nothing. The configuration is that of the folders beside
# this file, which also say why it is so. It ends with `bartleby doctor --rehearse`.
#
# Exit status: doctor's (0 all is well, 1 something is left to do), 2 nothing was done, 3 it stopped half-way.
set -eu
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)

usage() {
    cat <<END
Usage: setup.sh --domain example.com --primary mx1.example.com[:25] --recipients FILE
                [--mta postfix|sendmail|exim|opensmtpd] [--yes]

Makes a backup mail server for a domain out of a fresh Debian 12 or 13, and shows all of it before.
FILE has every address of the domain that the primary knows, one a line. Default: Postfix.
END
}

# What is in the way of a beginning, and how it is mended.
stop() {
    printf 'setup.sh: %s\n' "$@" | cat -v >&2
    echo "setup.sh: nothing was changed" >&2
    exit 2
}

lower() { printf '%s' "$1" | tr '[:upper:]' '[:lower:]'; }

# Whether it is the full name of a domain or host, in lower case.
is_name() {
    [ "${#1}" -le 253 ] && case $1 in *[!a-z0-9.-]*) false ;; esac &&
        printf '%s\n' "$1" | grep -Eqx '([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?'
}

is_ipv4() {
    case $1 in *[!0-9.]*) false ;; esac &&
        printf '%s\n' "$1" | awk -F. '{ exit !(NF == 4 && $1 <= 255 && $2 <= 255 && $3 <= 255 && $4 <= 255 && !/\.\.|^\.|\.$/) }'
}

is_installed() { dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

# ---------------------------------------------------------------- What was asked for

domain='' primary='' recipients='' mta=postfix yes=''
while [ $# -gt 0 ]; do
    case $1 in
    --yes) yes=yes; shift; continue ;;
    -h | --help) usage; exit 0 ;;
    --domain | --primary | --recipients | --mta) [ $# -ge 2 ] || { usage >&2; stop "$1 needs a value"; } ;;
    *) usage >&2; stop "'$1' is no option" ;;
    esac
    case $1 in
    --domain) domain=$(lower "$2") ;;
    --primary) primary=$(lower "$2") ;;
    --recipients) recipients=$2 ;;
    --mta) mta=$2 ;;
    esac
    shift 2
done
for option in domain primary recipients; do
    eval "[ -n \"\$$option\" ]" || { usage >&2; stop "--$option is missing"; }
done
case $mta in
postfix | sendmail | exim | opensmtpd) ;;
*) stop "--mta: it must be postfix, sendmail, exim or opensmtpd, and is '$mta'" ;;
esac
is_name "$domain" || stop "--domain: '$domain' is no domain such as example.com"
host=$primary port=25
case $primary in *:*) host=${primary%:*} port=${primary##*:} ;; esac
is_name "$host" || is_ipv4 "$host" ||
    stop "--primary: '$primary' is no host such as mx1.example.com, mx1.example.com:25 or 192.0.2.25"
case $port in '' | 0* | *[!0-9]* | ??????*) port=0 ;; esac
{ [ "$port" -ge 1 ] && [ "$port" -le 65535 ]; } || stop "--primary: the port in '$primary' is not one from 1 to 65535"

[ "$(id -u)" = 0 ] || stop "only root can do this: sudo sh $0 ..."
system=$(sed -n 's/^ID=//p; s/^VERSION_ID=//p' /etc/os-release 2>/dev/null | tr -d '"' | sort | paste -sd ' ')
case $system in
'12 debian' | '13 debian') ;;
*) stop "this is not Debian 12 or 13, for which this script was made; examples/README.md says what to do by hand" ;;
esac
own=$(lower "$(hostname -f 2>/dev/null || hostname)")
is_name "$own" || stop "this machine's full name is not known (hostname -f says '$own'): give it one, for example" \
    "    hostnamectl set-hostname mx2.$domain, and in /etc/hosts: 127.0.1.1 mx2.$domain mx2"
[ "$own" != "$host" ] || stop "--primary: $host is this very machine"
[ "$own" != "$domain" ] || stop "--domain: $domain is this machine's own name, whose mail is delivered here"

{ [ -f "$recipients" ] && [ -r "$recipients" ]; } || stop "--recipients: the file $recipients can't be read"
stage=$(mktemp -d /tmp/bartleby-setup.XXXXXX)
trap 'rm -rf "$stage"' EXIT
trap 'echo "setup.sh: nothing was changed" >&2; exit 2' HUP INT TERM

# In lower case, each once, postmaster first, to whom everybody may write (RFC 5321, section 4.5.1).
awk -v domain="$domain" -v list="$stage/recipients" '
    { sub(/\r$/, ""); gsub(/^[ \t]+|[ \t]+$/, "") }
    /^(#.*)?$/ { next }
    { address = tolower($0); at = index(address, "@"); given++ }
    address !~ /^[a-z0-9_][a-z0-9_.+=~\/&'"'"'-]*@[a-z0-9.-]+$/ { wrong[++bad] = "line " NR ": no address such as larry@" domain ": " $0; next }
    substr(address, at + 1) != domain { wrong[++bad] = "line " NR ": not at " domain ": " $0; next }
    { known[address] = 1 }
    END {
        for (i = 1; i <= bad && i <= 5; i++) print wrong[i]
        if (bad > 5) print "and " bad - 5 " more lines"
        if (!given) print "it has no address"
        first = "postmaster@" domain
        print first > list
        close(list)
        sort = "sort >> " list
        for (address in known) if (address != first) print address | sort
        close(sort)
    }' "$recipients" > "$stage/wrong"
[ ! -s "$stage/wrong" ] || stop "--recipients: in $recipients are lines that can't be used:" "$(head -n 6 "$stage/wrong")"

# ---------------------------------------------------------------- What is to be done

# Where there is no systemd, cron looks whether the primary is back. OpenSMTPD's queue is run by it anyhow.
cron=''
[ -d /run/systemd/system ] || cron=cron
case $mta in
postfix) packages='postfix' called=Postfix etc=/etc/postfix daemon=postfix ;;
sendmail) packages='sendmail' called=sendmail etc=/etc/mail daemon=sendmail ;;
exim) packages='exim4-daemon-light' called=Exim etc=/etc/exim4 daemon=exim4 ;;
opensmtpd) packages="opensmtpd ca-certificates cron" called=OpenSMTPD etc=/etc/smtpd. daemon=opensmtpd ;;
esac
other=$(dpkg-query -W -f '${db:Status-Status} ${Package} ${Provides}\n' | awk -v ours="$mta" '
    $1 == "installed" && / mail-transport-agent(,|$| )/ && $2 !~ "^" ours { print $2; exit }')
[ -z "$other" ] || stop "another mail server is installed, which would have to go: $other" \
    "see what it is for; then, if it may go: apt-get remove $other"
! is_installed exim4-daemon-heavy || packages=$(echo "$packages" | sed 's/exim4-daemon-light//')

# The web server: what is there, else Apache.
web=apache2
for server in lighttpd nginx caddy; do
    [ -d /etc/apache2 ] || [ ! -d "/etc/$server" ] || web=$server
done
[ $web != apache2 ] || packages="$packages apache2"

# The program: installed by a package, or by make, or to be installed by make.
program=/usr/local/sbin/bartleby installed=yes
if [ -x /usr/sbin/bartleby ]; then
    program=/usr/sbin/bartleby
elif [ ! -x $program ]; then
    [ -x "$here/../target/index.cgi" ] ||
        stop "the program is not here: run make first, or install the package (README.md, Install)"
    packages="$packages make" installed=''
fi
missing=''
for package in $packages $cron sudo; do
    case "$missing " in *" $package "*) ;; *) is_installed "$package" || missing="$missing $package" ;; esac
done

: > "$stage/plan"
: > "$stage/new"
: > "$stage/differ"
run() { printf '%s\n' "$*" >> "$stage/plan"; }

# What belongs into the file $1, with mode $2, is read from standard input.
file() {
    mkdir -p "$stage${1%/*}"
    cat > "$stage$1"
    if [ ! -e "$1" ] && [ ! -L "$1" ]; then
        echo "$1" >> "$stage/new"
        run "install -D -b -m $2 $stage$1 $1"
    elif ! cmp -s "$1" "$stage$1"; then
        echo "$1" >> "$stage/differ"
    fi
}

# A file of the folder beside this, with the names of this set-up in place of the example's.
hop=''
[ "$port" = 25 ] || hop=":$port"
example() {
    sed -e '/^sub\.example\.com/d' -e 's/tuccster\.example\.com/@primary@/g; s/bartleby\.example\.com/@own@/g' \
        -e "/^[^#]/s/example\.com/$domain/g; s/ smtp:\[@primary@\]/&$hop/; s/@primary@:25/@primary@:$port/" \
        -e "s/^PRIMARY_PORT = 25/PRIMARY_PORT = $port/; s/@primary@/$host/g; s/@own@/$own/g" \
        -e "s|/usr/local/sbin/bartleby|$program|g" "$here/$1"
}

# The comments before the first line of a list.
heading() { sed '/^$/,$d' "$here/$1"; echo; }

if [ -n "$missing" ]; then
    run "apt-get update -q"
    case $missing in
    *\ postfix*) run "echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections" ;;
    esac
    run "DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-remove" \
        "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold$missing"
fi

case $mta in
postfix)
    example postfix/main.cf | file "$etc/main.cf" 644
    example postfix/relay_domains | file "$etc/relay_domains" 644
    { heading postfix/relay_recipients; sed 's/$/ x/' "$stage/recipients"; } | file "$etc/relay_recipients" 644
    ;;
exim)
    example exim/exim4.conf | file "$etc/exim4.conf" 640
    example exim/relay_domains | file "$etc/relay_domains" 644
    { heading exim/relay_recipients; cat "$stage/recipients"; } | file "$etc/relay_recipients" 644
    ;;
opensmtpd)
    example opensmtpd/smtpd.conf | file "${etc}conf" 644
    example opensmtpd/relay_domains | file "${etc}relay_domains" 644
    { heading opensmtpd/relay_recipients; cat "$stage/recipients"; } | file "${etc}relay_recipients" 644
    echo '*/30 * * * * root /usr/sbin/smtpctl schedule all >/dev/null' | file /etc/cron.d/opensmtpd 644
    ;;
sendmail)
    example sendmail/sendmail.mc |
        if [ "$port" = 25 ]; then cat; else sed "s/^MAILER_DEFINITIONS/define(\`ESMTP_MAILER_ARGS', \`TCP \$h $port')dnl\\n&/"; fi |
        file "$etc/sendmail.mc" 644
    example sendmail/mailertable | file "$etc/mailertable" 644
    example sendmail/relay-domains | file "$etc/relay-domains" 644
    { heading sendmail/access; sed 's/.*/To:&	OK/' "$stage/recipients"
        example sendmail/access | sed -n '/^# All others/,/^$/p'; } | file "$etc/access" 644
    ;;
esac
if [ ! -e /etc/aliases ]; then
    file /etc/aliases 644 < "$here/aliases"
elif ! grep -qi '^postmaster:' /etc/aliases; then
    stop "/etc/aliases does not say who reads postmaster's mail: add the lines of $here/aliases to it"
fi
file /etc/bartleby.toml 644 <<END
# Every setting is described in bartleby.toml(5).
[primary]
hosts = ["$host:$port"]
domains = ["$domain"]
END
example sudoers | file /etc/sudoers.d/bartleby 440

# What looks each minute whether the primary is back.
watch=''
if [ -n "$cron" ]; then
    example bartleby-watch.cron | file /etc/cron.d/bartleby 644
elif ! systemctl is-enabled -q bartleby-watch.timer 2>/dev/null; then
    watch='systemctl enable --now bartleby-watch.timer'
fi
if [ -z "$cron" ] && [ ! -e /lib/systemd/system/bartleby-watch.timer ]; then
    for unit in bartleby-watch.service bartleby-watch.timer; do
        file /etc/systemd/system/$unit 644 < "$here/$unit"
    done
    [ -z "$watch" ] || watch="systemctl daemon-reload && $watch"
fi

if [ -s "$stage/new" ] || [ -n "$missing" ]; then
    case $mta in
    postfix) run "newaliases"; run "postfix check" ;;
    exim) run "chgrp Debian-exim $etc/exim4.conf" ;;
    sendmail)
        run "cd $etc && m4 sendmail.mc > sendmail.cf && makemap hash access < access && makemap hash mailertable < mailertable"
        run "sed -i 's/^QUEUE_INTERVAL=.*/QUEUE_INTERVAL=\"30m\"/' $etc/sendmail.conf"
        run "newaliases"
        ;;
    esac
    run "service $daemon restart"
    run "chmod a+x /etc/sudoers.d && visudo -c -q -f /etc/sudoers.d/bartleby"
fi
# After the mail server, whose names go into the web server's snippet.
[ -n "$installed" ] || run "make -C '$(dirname "$here")' install"
if [ $web = apache2 ] && [ ! -e /etc/apache2/conf-enabled/bartleby.conf ]; then
    run "a2enmod -q cgid && a2enconf -q bartleby && service apache2 restart"
fi
if [ -n "$watch" ]; then run "$watch"; fi
if [ -s "$stage/plan" ]; then run "sudo -u www-data $program watch --once"; fi

# ---------------------------------------------------------------- It is shown

echo "A backup mail server for $domain, with $called, on $own. Its primary is $host:$port."
echo "It takes mail for $(awk 'END { print NR }' "$stage/recipients") addresses at $domain, and for nobody else there."

if [ -s "$stage/differ" ]; then
    while read -r path; do
        echo
        echo "$path is there already, and differs (-) from what belongs there (+):"
        diff -u "$path" "$stage$path" | sed '1,2d; s/^/    /' | head -n 30 | cat -v
    done < "$stage/differ"
    exec >&2
    echo
    echo "setup.sh: nothing was changed, because it overwrites no file. Look whether you need what these say."
    echo "setup.sh: Where you do not, move them out of the way, then run this again:"
    sed 's/.*/    mv & &.before/' "$stage/differ"
    exit 2
fi

[ -z "$missing" ] || printf '\nPackages that are installed:\n   %s\n' "$missing"
[ ! -s "$stage/new" ] || printf '\nFiles that are written (here without their comments):\n'
while read -r path; do
    echo "    $path"
    grep -Ev '^(#|dnl|divert|$)' "$stage$path" |
        awk 'NR <= 40 { print "        " $0 } END { if (NR > 40) print "        ... and " NR - 40 " more lines" }'
done < "$stage/new"
if [ -s "$stage/plan" ]; then
    printf '\nCommands, in this order:\n'
    sed 's/^/    /' "$stage/plan"
else
    printf '\nAll of it is in place already: nothing is changed.\n'
fi

# ---------------------------------------------------------------- It is done

# It ended half-way.
left() {
    trap '' HUP INT TERM EXIT
    echo "setup.sh: this failed. What is left to do, in this order:" >&2
    tail -n "+$done" "$stage/plan" | sed 's/^/    /' >&2
    exit 3
}

if [ -s "$stage/plan" ]; then
    if [ -n "$yes" ]; then
        :
    elif [ -t 0 ]; then
        printf '\nDo this? [y/N] '
        read -r answer || answer=''
        case $answer in [yY] | [yY][eE][sS]) ;; *) stop "as you wish" ;; esac
    else
        printf '\n'
        stop "this was only shown, as there is no terminal to ask at: say --yes to do it"
    fi
    echo
    done=1
    cp "$stage/plan" "$stage/commands"
    trap left HUP INT TERM
    while read -r command; do
        printf '+ %s\n' "$command"
        if ! sh -ec "$command" < /dev/null; then
            # That the primary is down, say, or mail waits: it is no failure of this.
            case $command in *"watch --once") ;; *) left ;; esac
        fi
        done=$((done + 1))
    done < "$stage/commands"
    trap 'exit 3' HUP INT TERM
fi

# Some mail servers take a moment until they listen.
page=''
[ $web != apache2 ] || page='--web http://localhost/bartleby/'
echo
echo "+ sudo -u www-data $program doctor --rehearse $page"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    code=0
    # shellcheck disable=SC2024,SC2086 # the file is root's; two words, or none
    sudo -u www-data "$program" doctor --rehearse $page > "$stage/doctor" || code=$?
    grep -q 'no mail gets in here: connection refused' "$stage/doctor" || break
    sleep 1
done
cat "$stage/doctor"
echo
echo "Who may see the page, http://$own/bartleby/, is in the web server's snippet: at first this machine alone."
exit "$code"
