//! Every state of the page as people see it, made by the built program from played mail servers: the sentence that is read
//! first, and what comes after it. `BARTLEBY_SCREENS=FOLDER` keeps the pages.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod machine;
#[path = "cgi/played.rs"]
#[allow(dead_code, reason = "not every moody primary is met here")]
mod played;

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::params;
use serde_json::json;

use machine::Machine;
use played::{Played, accepts, refuses};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

const REFUSED: &str = "connect to tuccster.example.com[192.0.2.25]:25: Connection refused";
const GREYLISTED: &str = "host mx.example.org[198.51.100.7] said: 450 4.2.0 <anna@example.org>: Recipient address rejected: \
                          Greylisted, see https://greylist.example.org/help/example.org.html (in reply to RCPT TO command)";
const FULL: &str =
    "host mx.example.net[198.51.100.9] said: 452 4.2.2 The mailbox is full (in reply to RCPT TO command)";

const SENDERS: [&str; 8] = [
    "service@bank.example",
    "bounce-4719@news.example",
    "j.smith@school.example",
    "o'brien&sons@solicitors.example",
    "",
    "no-reply@travel.example",
    "newsletter+larry=example.com@mailing-lists.shop.example",
    "ward3@hospital.example",
];
const RECIPIENTS: [&str; 6] = [
    "larry@example.com",
    "moe@example.com",
    "office@example.com",
    "orders@sales.example.com",
    "curly@example.com",
    "accounts@example.com",
];

/// The line of Postfix's listing for a message of this age.
fn line(number: usize, age: i64, state: &str, recipients: &[(&str, &str)]) -> String {
    let recipients: Vec<_> =
        recipients.iter().map(|(address, why)| json!({"address": address, "delay_reason": why})).collect();
    json!({
        "queue_name": state, "queue_id": format!("{:X}9901{number:02X}", 0x2FBE3 + number * 7919), "arrival_time": now() - age,
        "message_size": 1200 + number * number * 977, "forced_expire": false, "sender": SENDERS[number % SENDERS.len()],
        "recipients": recipients,
    })
    .to_string()
}

/// Thirty-odd messages, the oldest this old: most wait for the main mail server, some for other reasons.
fn lines(oldest: i64) -> Vec<String> {
    let mut lines: Vec<String> = (0..29)
        .map(|number| {
            let age = oldest - oldest * number as i64 / 30;
            line(number, age, "deferred", &[(RECIPIENTS[number % RECIPIENTS.len()], REFUSED)])
        })
        .collect();
    lines.push(line(31, oldest / 3, "deferred", &[("anna@example.org", GREYLISTED), ("bert@example.org", GREYLISTED)]));
    lines.push(line(32, oldest / 4, "deferred", &[("gertrud@example.net", FULL), ("moe@example.com", REFUSED)]));
    lines.push(line(33, oldest / 2, "hold", &[("ward3@example.com", "")]));
    lines
}

/// A machine with such a queue, and the rest of its configuration.
fn queue(lines: &[String], more: &str) -> Machine {
    let machine = Machine::with_lister("postfix", "cat $(dirname $0)/listing");
    fs::write(machine.path("listing"), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    configure(&machine, "postfix", more);
    machine
}

/// Far from full, whatever machine this is.
const DISK: &str = "[disk]\nwarn = \"0%\"\ncritical = \"0%\"";

fn configure(machine: &Machine, kind: &str, more: &str) {
    let disk = if more.contains("[disk]") { "" } else { DISK };
    machine.configure(kind, &format!("lifetime = \"5d\"\n{more}\n{disk}"));
}

fn primary(host: &str) -> String {
    format!("[primary]\nhosts = [\"{host}\"]\ndomains = [\"example.com\"]")
}

/// An address of this machine at which nobody listens.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Looks as they were taken every quarter of an hour, of these numbers of messages.
fn remember(machine: &Machine, messages: impl Fn(i64) -> u64, span: i64) {
    // One look of the program's own makes the folder.
    machine.json();
    let free = machine.json().1["filesystems"][0]["bytes_available"].as_u64().unwrap();
    let minute = now() / MINUTE * MINUTE;
    let bytes: Vec<u8> = (1..=span / (15 * MINUTE))
        .rev()
        .flat_map(|quarter| {
            let age = quarter * 15 * MINUTE;
            let count = messages(age);
            let numbers = [(minute - age) as u64, count, count, count * 14_336, free + age as u64 * 2000];
            let sum =
                numbers.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, n| (sum ^ n).wrapping_mul(0x0000_0100_0000_01b3));
            numbers.into_iter().chain([sum]).flat_map(u64::to_le_bytes).collect::<Vec<u8>>()
        })
        .collect();
    fs::write(machine.path("state/samples.table"), bytes).unwrap();
}

/// An outage on record, the last of which may still go on.
fn outage(machine: &Machine, host: &str, down: i64, up: Option<i64>, messages: i64) {
    let database = machine.database();
    database
        .execute("UPDATE primary_host SET since = ?1 WHERE ?2", params![down, up.is_none()])
        .and_then(|_| {
            let columns = "INSERT INTO outage (host, down, up, messages, down_seen_by, up_seen_by)";
            let values = params![host, down, up, messages, "watch", up.map(|_| "watch")];
            database.execute("DELETE FROM outage WHERE up IS NULL AND ?1 IS NULL", params![up])?;
            database.execute(&format!("{columns} VALUES (?1, ?2, ?3, ?4, ?5, ?6)"), values)
        })
        .unwrap();
}

fn page(machine: &Machine, query: &str) -> String {
    machine.get(&format!("{query}&format=html")).body
}

/// A machine whose main mail server has been down for a night.
fn down_for_a_night(oldest: i64) -> (Machine, String) {
    let host = nobody();
    let machine = queue(&lines(oldest), &primary(&host));
    let since = (oldest - HOUR).min(9 * HOUR + 12 * MINUTE);
    remember(
        &machine,
        |age| if age > since { u64::from(age % (7 * HOUR) < HOUR) } else { (32 * (since - age) / since) as u64 },
        30 * HOUR,
    );
    machine.command().arg("doctor").output().unwrap();
    outage(&machine, &host, now() - 9 * DAY, Some(now() - 9 * DAY + 3 * HOUR), 17);
    outage(&machine, &host, now() - since, None, 32);
    (machine, host)
}

/// Makes a Postfix of scripts, in namespaces that end with it, and a machine that has been up for weeks. `$1` is a folder
/// of its own, `$2` the program, `$3` the main mail server's name.
const PLAYED_POSTFIX: &str = r##"
set -e
hostname bartleby.example.com
for folder in /usr/sbin /etc /var/lib; do
    mkdir -p "$1/upper$folder" "$1/work$folder"
    mount -t overlay none -o "lowerdir=$folder,upperdir=$1/upper$folder,workdir=$1/work$folder" "$folder"
done
mkdir -p /etc/postfix "$1/queue" /var/lib/bartleby
printf '#!/bin/sh\ncat %s/listing\n' "$1" > /usr/sbin/postqueue
cat > /usr/sbin/postconf <<'END'
#!/bin/sh
case $* in
    *-h*myhostname*) echo bartleby.example.com ;;
    *) cat <<'LINES'
mail_version = 3.7.11
queue_directory = QUEUE
authorized_flush_users = static:anyone
maillog_file =
maximal_queue_lifetime = 5d
bounce_queue_lifetime = 5d
maximal_backoff_time = 4000s
queue_run_delay = 300s
relay_domains =
mydestination =
LINES
esac
END
sed -i "s|QUEUE|$1/queue|" /usr/sbin/postconf
chmod 755 /usr/sbin/postqueue /usr/sbin/postconf
: > /etc/postfix/main.cf
touch -d '60 days ago' /etc/postfix/main.cf
for name in master qmgr; do cp /bin/sleep "$1/$name"; "$1/$name" 30 & done
awk '{ print $1 + 2592000, $2 + 2592000 }' /proc/uptime > "$1/uptime"
mount --bind "$1/uptime" /proc/uptime
echo "127.0.0.1 $3" >> /etc/hosts
echo 'nameserver 127.0.0.1' > /etc/resolv.conf
cp -R "$1/state/." /var/lib/bartleby/
export BARTLEBY_CONFIG="$1/played.toml" GATEWAY_INTERFACE=CGI/1.1 REQUEST_METHOD=GET SERVER_PROTOCOL=HTTP/1.1 \
    HTTP_HOST=bartleby REMOTE_ADDR=192.0.2.7 BARTLEBY_ACCESS=granted QUERY_STRING=format=html
"$2" | sed '1,/^\r$/d'
"##;

/// A page on which every fact is known; `None` where this is not root, who alone can play it.
fn everything_known(disk: &str) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let (machine, host) = down_for_a_night(26 * HOUR);
    let name = "tuccster.example.com:25";
    let database = machine.database();
    for table in ["primary_host", "outage"] {
        database.execute(&format!("UPDATE {table} SET host = ?1 WHERE host = ?2"), params![name, host]).unwrap();
    }
    drop(database);
    let settings = format!("{}\n[state]\ndirectory = \"/var/lib/bartleby\"\n{disk}\n", primary(name));
    fs::write(machine.path("played.toml"), settings).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", PLAYED_POSTFIX, "sh"])
        .args([
            machine.path("").to_str().unwrap().trim_end_matches('/'),
            env!("CARGO_BIN_EXE_bartleby"),
            "tuccster.example.com",
        ])
        .output()
        .unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page.contains("</html>"), "{page}{}", String::from_utf8_lossy(&output.stderr));
    Some(page)
}

/// The record of the machine's run as it is where the mail log said what came of it.
fn returned(machine: &Machine) {
    let sent_back: Vec<_> = (0..4)
        .map(|number| json!({"id": format!("2FBE399010{number}"), "recipient": RECIPIENTS[number], "reason": "550 5.1.1 unknown user"}))
        .collect();
    let database = machine.database();
    database
        .execute("UPDATE flush SET exit = 'ended with status 0', sampled = ?1, messages_left = 7, recipients_left = 7, settled = 1", [now()])
        .and_then(|_| {
            let columns = "UPDATE result SET delivered = 21, returned = 4, unrecorded = 0, reason = '550 5.1.1 unknown user'";
            database.execute(&format!("{columns}, sent_back = ?1"), [json!(sent_back).to_string()])
        })
        .unwrap();
}

/// The pages, each by its name.
fn pages() -> Vec<(&'static str, String)> {
    let mut pages = Vec::new();
    let up = Played::new(accepts);
    let empty = queue(&[], &primary(&up.host));
    remember(&empty, |age| u64::from((3 * HOUR..5 * HOUR).contains(&age)) * 7, 7 * DAY);
    pages.push(("empty", page(&empty, "")));
    let waiting = queue(&lines(20 * HOUR)[29..], &primary(&up.host));
    pages.push(("waiting", page(&waiting, "")));
    let (down, host) = down_for_a_night(26 * HOUR);
    pages.push(("primary-down", page(&down, "")));
    pages.push(("receipt", page(&down, "outage=2")));
    pages.push(("filtered", page(&down, "q=smith&domain=example.com&sort=-size")));
    let (near, _) = down_for_a_night(4 * DAY + 11 * HOUR + 30 * MINUTE);
    pages.push(("near-the-end", page(&near, "")));
    let (past, _) = down_for_a_night(5 * DAY + 2 * HOUR);
    pages.push(("past-its-time", page(&past, "")));
    // It comes back.
    let listener = TcpListener::bind(&host).unwrap();
    drop(listener);
    let back = Played::new(accepts);
    let text = fs::read_to_string(down.path("bartleby.toml")).unwrap().replace(&host, &back.host);
    fs::write(down.path("bartleby.toml"), text).unwrap();
    let database = down.database();
    database.execute("UPDATE primary_host SET host = ?1", params![back.host]).unwrap();
    database.execute("UPDATE outage SET host = ?1", params![back.host]).unwrap();
    drop(database);
    down.command().arg("doctor").output().unwrap();
    pages.push(("back", page(&down, "")));
    fs::write(down.path("flush"), "#!/bin/sh\nsleep 20\n").unwrap();
    assert_eq!(down.get("flush").status, 303);
    let all = lines(26 * HOUR);
    fs::write(down.path("listing"), all[25..].iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    pages.push(("running", page(&down, "flushed=1")));
    down.kill_all();
    returned(&down);
    pages.push(("returned", page(&down, "flushed=1")));
    let refusing = Played::new(refuses);
    let refused = queue(&lines(26 * HOUR), &primary(&refusing.host));
    pages.push(("refusals", page(&refused, "flush")));
    pages.push(("denied", page(&Machine::with_fixture("postfix/denied-list"), "")));
    pages.push(("down", page(&Machine::with_fixture("postfix/down-list-root-head"), "")));
    let cut = queue(&lines(26 * HOUR), "deadline = \"300ms\"");
    fs::write(cut.path("list"), format!("#!/bin/sh\ncat {}\nsleep 977\n", cut.path("listing").display())).unwrap();
    pages.push(("cut", page(&cut, "")));
    pages.push(("first-visit", page(&queue(&lines(3 * HOUR), ""), "")));
    let stranger = waiting.ask(&[("BARTLEBY_ACCESS", b""), ("HTTP_ACCEPT", b"text/html")]);
    pages.push(("stranger", stranger.body));
    pages
}

/// The first sentence of each page.
const HEADLINES: [(&str, &str); 16] = [
    ("empty", "The queue is empty. No mail is waiting here."),
    ("waiting", "3 messages are waiting here. None is lost."),
    ("primary-down", "32 messages are waiting here. None is lost."),
    ("receipt", "Outage 2 of the main mail server"),
    ("filtered", "32 messages are waiting here. None is lost."),
    ("near-the-end", "In 12 hours the first of 32 messages can go back to its sender."),
    ("past-its-time", "1 message is past its time: the next attempt that fails returns it to its sender."),
    ("back", "The main mail server is back. Mail for 30 recipients can be delivered now."),
    ("running", "The queue is being run. 7 messages are still waiting."),
    ("returned", "Mail for 4 of 25 recipients went back to its sender."),
    ("refusals", "Nothing was tried: the main mail server would refuse this mail."),
    ("denied", "The queue could not be read, so it is not known whether mail is waiting."),
    ("down", "At least 3 messages are waiting. The list is not complete."),
    ("cut", "At least 32 messages are waiting. The list is not complete."),
    ("first-visit", "32 messages are waiting here. None is lost."),
    ("stranger", "Not allowed from here"),
];

/// What of the page comes first, and what after that.
const ORDER: [&str; 8] = [
    "<h1>",
    "headline",
    "class=\"facts\"",
    "id=\"for\"",
    "id=\"reasons\"",
    "id=\"history\"",
    "id=\"messages\"",
    "The listing is",
];

fn text(markup: &str) -> String {
    let fragment = scraper::Html::parse_fragment(markup);
    fragment.root_element().text().collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The screens that a page must fit: width and height in CSS pixels.
const SCREENS: [(u32, u32); 4] = [(1280, 800), (768, 1024), (360, 740), (320, 640)];

/// What is measured of each page on each screen: by how much it is too wide, and where its facts and its button end.
const MEASURE: &str = r#"
<script>
addEventListener('load', () => {
    const end = (page, what) => Math.round(page.querySelector(what)?.getBoundingClientRect().bottom ?? 0);
    document.body.textContent = '[[' + [...document.querySelectorAll('iframe')].map(frame => {
        const page = frame.contentDocument;
        const width = page.documentElement.scrollWidth - frame.clientWidth;
        return [frame.title, frame.clientWidth, width, end(page, '.facts'), end(page, '.action')].join(' ');
    }).join(';') + ']]';
});
</script>"#;

/// The options of a browser without a screen, as root, that reaches out for nothing by itself.
const BROWSER: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=20000",
    "--dump-dom",
];

#[test]
fn every_page_fits_every_screen_and_what_matters_is_seen_without_scrolling() {
    let mut pages = pages();
    pages.extend(everything_known(DISK).map(|page| ("everything-known", page)));
    let folder = tempfile::tempdir().unwrap();
    let mut frames = String::from("<!DOCTYPE html><meta charset=utf-8><body>");
    for ((name, page), (width, height)) in pages.iter().flat_map(|page| SCREENS.map(|screen| (page, screen))) {
        let page = page.replace('&', "&amp;").replace('"', "&quot;");
        frames +=
            &format!("<iframe title={name} width={width} height={height} style='border:0' srcdoc=\"{page}\"></iframe>");
    }
    let file = folder.path().join("frames.html");
    fs::write(&file, frames + MEASURE).unwrap();
    let mut browser = Command::new("chromium");
    browser.args(BROWSER).arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
    let Ok(output) = browser.arg(format!("file://{}", file.display())).env("HOME", folder.path()).output() else {
        assert_ne!(env::var("BARTLEBY_LAB").as_deref(), Ok("required"), "there is no chromium");
        let _ = std::io::stderr().write_all(b"SKIPPED: the pages were not measured, as there is no chromium\n");
        return;
    };
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let measured = shown.split_once("[[").and_then(|(_, rest)| rest.split_once("]]")).map(|(measured, _)| measured);
    let measured: Vec<_> = measured.unwrap_or_else(|| panic!("{shown}")).split(';').collect();
    assert_eq!(measured.len(), pages.len() * SCREENS.len());
    for line in measured {
        let words: Vec<_> = line.split(' ').collect();
        let [name, numbers @ ..] = &words[..] else { panic!("{line}") };
        let numbers: Vec<i64> = numbers.iter().map(|number| number.parse().unwrap()).collect();
        let [width, too_wide, facts, button] = numbers[..] else { panic!("{line}") };
        assert!(too_wide <= 0, "{name} is {too_wide} pixels too wide at {width}");
        let height = SCREENS.iter().find(|(screen, _)| i64::from(*screen) == width).unwrap().1;
        // The narrowest is that of WCAG 1.4.10, which one may scroll.
        if width > 320 && ["everything-known", "empty"].contains(name) {
            assert!(facts > 0 && facts <= i64::from(height), "the facts of {name} end at {facts} at {width}");
            assert!(button <= i64::from(height), "the button of {name} ends at {button} at {width}");
            assert!(button > 0 || *name == "empty", "{name} has no button");
        }
    }
}

#[test]
fn where_everything_is_known_the_facts_say_it() {
    let Some(page) = everything_known(DISK) else { return };
    if let Some(folder) = env::var_os("BARTLEBY_SCREENS") {
        fs::write(Path::new(&folder).join("page.html"), &page).unwrap();
    }
    let facts = page.split_once("<dl class=\"facts\">").unwrap().1.split_once("</dl>").unwrap().0;
    assert!(!facts.contains("not known"), "{facts}");
    let facts = text(facts);
    let full = everything_known("[disk]\nwarn = \"100%\"\ncritical = \"100%\"").unwrap();
    if let Some(folder) = env::var_os("BARTLEBY_SCREENS") {
        fs::write(Path::new(&folder).join("disk-full.html"), &full).unwrap();
    }
    assert!(full.contains("<title>Disk full: 32") && full.contains("<em>The disk for mail is nearly full: "), "{full}");
    assert!(full.contains("</em> 32 messages are waiting.") && !full.contains("None is lost"), "{full}");
    for part in [
        "Main mail server down since",
        "9 hours, as far as was seen",
        "Next try, by itself",
        "in 72 minutes at the latest",
        "Nothing goes back before",
        "kept for 5 days, 3 days left",
        "Disk for mail",
    ] {
        assert!(facts.contains(part), "{part}: {facts}");
    }
}

/// How large a page of 100 messages may be, in bytes.
const LARGEST: usize = 60_000;

#[test]
fn a_page_of_100_messages_that_all_wait_for_different_reasons_is_under_60_kb() {
    let host = nobody();
    let lines: Vec<_> = (0..130)
        .map(|number| {
            let address = format!("o'neill&sons@department-{number}.example.com");
            let why = format!(
                "host mx{number}.mail.example.com[2001:db8:4::{number:x}] said: 450 4.2.0 <{address}>: Recipient address \
                 rejected: \"greylisted\", see https://example.com/help?of={number}&why=greylist (in reply to RCPT TO command)"
            );
            line(number, 60 * HOUR - number as i64 * 1700, "deferred", &[(&address, &why)])
        })
        .collect();
    let machine = queue(&lines, &primary(&host));
    remember(&machine, |age| (age / MINUTE % 1440).unsigned_abs(), 8 * DAY);
    machine.command().arg("doctor").output().unwrap();
    for number in 0..6 {
        outage(&machine, &host, now() - (9 - number) * DAY, Some(now() - (9 - number) * DAY + number * HOUR), 17);
    }
    machine.get("flush");
    machine.kill_all();
    let page = page(&machine, "");
    // A configured command has no buttons that run one message.
    let buttons = 100 * " <button name=\"flush\" value=\"id:DBCFA990159\">try now</button>".len();
    assert!(page.contains("Messages 1-100 of 130") && page.matches("<path class=\"area\"").count() == 2, "{page}");
    assert!(!page.contains(" src=") && !page.contains("@import"), "it is all there is");
    assert!(page.len() + buttons <= LARGEST, "{} + {buttons} bytes", page.len());
}

#[test]
fn every_state_of_the_page_has_its_sentence_and_what_matters_comes_first() {
    let pages = pages();
    let by_name: HashMap<_, _> = pages.iter().map(|(name, page)| (*name, page)).collect();
    assert_eq!(by_name.len(), HEADLINES.len());
    for (name, headline) in HEADLINES {
        let page = by_name[name];
        let start = page.split_once("headline\">").unwrap().1;
        let end = start.find("</p>").unwrap_or(usize::MAX).min(start.find("</h2>").unwrap_or(usize::MAX));
        assert_eq!(text(&start[..end]), headline, "{name}");
        // Behind the style sheet, which has words of its own.
        let (style, body) = page.split_once("</style>").unwrap();
        assert!(style.len() < 9000, "{} bytes of style", style.len());
        let places: Vec<_> = ORDER.iter().filter_map(|part| body.find(part)).collect();
        assert!(places.is_sorted(), "{name}: {places:?}");
    }
    assert_eq!(ORDER.iter().filter(|part| by_name["primary-down"].contains(*part)).count(), ORDER.len());
    if let Some(folder) = env::var_os("BARTLEBY_SCREENS") {
        for (name, page) in &pages {
            fs::write(Path::new(&folder).join(name).with_extension("html"), page).unwrap();
        }
    }
}
