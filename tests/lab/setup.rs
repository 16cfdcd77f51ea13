//! The story from nothing: a machine with packages that nobody has configured, `examples/setup.sh`, an outage, and the
//! page in each of its chapters.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::client;
use crate::http::{self, ALLOWED};
use crate::machine::{BROUGHT, HOSTNAME, Lab};
use crate::mails::Mail;
use crate::mta::{self, Mta};
use crate::opensmtpd::OpenSmtpd;
use crate::page;
use crate::postfix::Postfix;
use crate::primary::{self, Mode, TUCCSTER};
use crate::{apache, comeback, install, wait};

const LIST: &str = "/root/recipients";

/// A mail server as its package leaves it, and the source, built.
pub struct FromNothing {
    mta: &'static dyn Mta,
    layer: &'static str,
    packages: &'static [&'static str],
}

/// Beside cron, which looks whether the primary is back.
pub static POSTFIX: FromNothing =
    FromNothing { mta: &Postfix, layer: "postfix-from-nothing", packages: &["postfix", "cron", "sudo", "make"] };

/// Beside cron, which runs its queue, too.
pub static OPENSMTPD: FromNothing = FromNothing {
    mta: &OpenSmtpd,
    layer: "opensmtpd-from-nothing",
    packages: &["opensmtpd", "ca-certificates", "cron", "sudo", "make"],
};

impl Mta for FromNothing {
    fn kind(&self) -> &'static str {
        self.mta.kind()
    }

    fn layer(&self) -> &'static str {
        self.layer
    }

    fn packages(&self) -> &'static [&'static str] {
        self.packages
    }

    fn brings(&self) -> Vec<&'static str> {
        install::SOURCES.to_vec()
    }

    /// The script does that.
    fn start(&self) {
        fs::create_dir_all(format!("{BROUGHT}/target")).unwrap();
        apache::install(&format!("{BROUGHT}/target"));
        fs::write(LIST, "larry@example.com\n# on leave\nCurly@Example.COM\r\n\nmoe@example.com\n").unwrap();
    }

    fn serves(&self) -> bool {
        false
    }

    fn queue_command(&self) -> Command {
        self.mta.queue_command()
    }

    fn queue_id(&self, reply: &str) -> String {
        self.mta.queue_id(reply)
    }

    fn is_refusal(&self, reason: &str) -> bool {
        self.mta.is_refusal(reason)
    }
}

/// What the script said with these arguments, and its exit status.
fn script(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("sh");
    command.arg(format!("{BROUGHT}/examples/setup.sh")).args(arguments).current_dir("/").stdin(Stdio::null());
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// Every file that an administrator has, with its size, owner, mode and time.
fn machine() -> BTreeSet<String> {
    let mut find = Command::new("find");
    find.args(["/etc", "/usr/local/sbin", "/var/www", "/var/spool/cron", "/tmp", "-xdev"]);
    // The temporary folder comes and goes.
    let output = find.args(["!", "-path", "/tmp", "-printf", "%p %s %u %m %T@\n"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[track_caller]
fn nothing_changed(before: &BTreeSet<String>) {
    let after = machine();
    let changed: Vec<_> = after.symmetric_difference(before).collect();
    assert!(changed.is_empty(), "{changed:?}");
}

/// The whole story.
pub fn and_an_outage(lab: &mut Lab) {
    let at = TUCCSTER.to_string();
    let kind = lab.mta.kind();
    let arguments = ["--domain", "example.com", "--primary", &at, "--recipients", LIST, "--mta", kind];
    let yes = [&arguments[..], &["--yes"]].concat();
    bad_input_changes_nothing(&arguments);
    nothing_is_overwritten(&yes);
    it_only_shows(&arguments);

    let (code, said) = script(&yes);
    // There is no DNS.
    assert_eq!(code, Some(1), "{said}");
    for line in [
        "ok    configuration: /etc/bartleby.toml",
        "ok    listing the queue: 0 messages in ",
        "ok    running the queue: ",
        "ok    state directory: /var/lib/bartleby\n",
        "ok    web page: bartleby ",
        "ok    watch: it looked ",
        "ok    port 25 here: it takes mail for the 3 recipients that were asked for, and refuses an unknown one",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let configuration = fs::read_to_string("/etc/bartleby.toml").unwrap();
    assert!(configuration.contains(&format!("hosts = [\"{at}\"]\ndomains = [\"example.com\"]\n")), "{configuration}");
    let before = machine();
    let (code, said) = script(&yes);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("All of it is in place already: nothing is changed."), "{said}");
    nothing_changed(&before);

    an_outage(lab);
}

fn bad_input_changes_nothing(good: &[&str]) {
    let before = machine();
    fs::write("/tmp/wrong", "larry@example.com\ncurly@example.org\nmoe\nlarry@example.com; reboot\n").unwrap();
    fs::write("/tmp/empty", "# nobody\n\n").unwrap();
    for (option, value, words) in [
        ("--domain", "", "--domain is missing"),
        ("--domain", "example", "'example' is no domain such as example.com"),
        ("--domain", "example.com\nexample.org", "is no domain"),
        ("--domain", "$(reboot).example.com", "is no domain"),
        ("--domain", HOSTNAME, "is this machine's own name"),
        ("--primary", "mx1", "'mx1' is no host such as"),
        ("--primary", "mx1.example.com:0", "not one from 1 to 65535"),
        ("--primary", "mx1.example.com:smtp", "not one from 1 to 65535"),
        ("--primary", HOSTNAME, "is this very machine"),
        ("--recipients", "/nonexistent", "the file /nonexistent can't be read"),
        ("--recipients", "/etc", "the file /etc can't be read"),
        ("--recipients", "/tmp/empty", "it has no address"),
        ("--recipients", "/tmp/wrong", "line 2: not at example.com: curly@example.org"),
        ("--recipients", "/tmp/wrong", "line 3: no address such as larry@example.com: moe"),
        ("--recipients", "/tmp/wrong", "line 4: no address such as larry@example.com: larry@example.com; reboot"),
        ("--mta", "qmail", "it must be postfix, sendmail, exim or opensmtpd"),
        ("--force", "now", "'--force' is no option"),
    ] {
        let (code, said) = script(&[good, &[option, value, "--yes"]].concat());
        assert_eq!(code, Some(2), "{option} {value}: {said}");
        assert!(said.contains(words) && said.ends_with("setup.sh: nothing was changed\n"), "{option} {value}: {said}");
    }
    for file in ["/tmp/wrong", "/tmp/empty"] {
        fs::remove_file(file).unwrap();
    }
    nothing_changed(&before);
    for (wrong, words) in [
        ("setpriv --reuid=65534 --regid=65534 --clear-groups", "only root can do this"),
        (
            "unshare --mount sh -c 'mount --bind /dev/null /etc/os-release && exec \"$@\"' -",
            "this is not Debian 12 or 13",
        ),
        ("unshare --uts sh -c 'hostname short && exec \"$@\"' -", "this machine's full name is not known"),
    ] {
        let line = format!("{wrong} sh {BROUGHT}/examples/setup.sh {} --yes 2>&1", good.join(" "));
        let output = Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code() == Some(2) && said.contains(words), "{words}: {said}");
    }
    nothing_changed(&before);
}

/// What the package has left is somebody's; its own remedy moves it away.
fn nothing_is_overwritten(yes: &[&str]) {
    let before = machine();
    let (code, said) = script(yes);
    assert!(code == Some(2) && said.contains("nothing was changed, because it overwrites no file"), "{said}");
    nothing_changed(&before);
    let remedies: Vec<_> = said.lines().filter(|line| line.starts_with("    mv ")).collect();
    assert!(!remedies.is_empty(), "{said}");
    remedies.iter().for_each(|line| drop(mta::run("sh", &["-c", line])));
}

/// Without somebody to ask.
fn it_only_shows(arguments: &[&str]) {
    let before = machine();
    let (code, said) = script(arguments);
    assert!(code == Some(2) && said.contains("this was only shown, as there is no terminal"), "{said}");
    for line in ["    /etc/bartleby.toml\n", "        domains = [\"example.com\"]\n", " a2enconf -q bartleby && "] {
        assert!(said.contains(line), "{line}: {said}");
    }
    nothing_changed(&before);
}

/// The primary is gone, mail comes in, the page says how it stands; the primary is back, the page's form delivers.
fn an_outage(lab: &mut Lab) {
    assert!(page::html(200).contains("The queue is empty"));
    let refused = client::recipient_reply("stranger@example.com");
    assert!(refused.starts_with('5'), "{refused}");
    let queued = client::send(lab.mta, |_| {
        vec![
            Mail::new("one", "alice@example.org", &["larry@example.com"]),
            Mail::new("two", "bob@example.net", &["curly@example.com", "moe@example.com"]),
        ]
    });
    wait::until("both are deferred", 60, || {
        let listing = page::try_json(200)?;
        (listing.queue.states["deferred"] == 2).then_some(()).ok_or(format!("{listing:?}"))
    });
    let shown = wait::until("the page says how it stands", 60, || {
        let page = http::get(ALLOWED, page::BASE).map_err(|error| error.to_string())?.expect(200).body;
        let returns = if lab.mta.kind() == "opensmtpd" { "The first goes back at" } else { "Nothing goes back before" };
        let words = ["2 messages are waiting here.", "None is lost.", "Main mail server down since", returns];
        let missing = words.iter().find(|words| !page.contains(**words));
        missing.is_none().then_some(()).ok_or(format!("{missing:?}: {page}"))?;
        Ok(page)
    });
    assert!(queued.iter().all(|queued| shown.contains(&queued.id)), "{shown}");

    lab.primary.up(Mode::Accepts);
    comeback::later();
    // Why mail waits in OpenSMTPD's queue could have another cause.
    let back =
        if lab.mta.kind() == "opensmtpd" { "main mail server accepts mail" } else { "The main mail server is back." };
    wait::until("the primary is seen to be back", 60, || {
        let page = http::get(ALLOWED, page::BASE).map_err(|error| error.to_string())?.expect(200).body;
        let is_back = page.contains(back) && page.contains("name=\"flush\" value=\"all\"");
        is_back.then_some(()).ok_or(page)
    });
    let started = wait::until("the run may begin", 60, || {
        let answer = http::post(ALLOWED, page::BASE, "flush=all").map_err(|error| error.to_string())?;
        (answer.status == 303).then_some(()).ok_or(answer.body.clone())?;
        Ok(answer)
    });
    let place = started.header("Location").unwrap().split_once('?').unwrap().1.to_owned();
    let outcome: Value = wait::until("the run is over", 150, || {
        let outcome = page::try_json(200)?.flush.last.ok_or("no run")?["outcome"].clone();
        if outcome["settled"] == true { Ok(outcome) } else { Err(format!("{outcome:#}")) }
    });
    assert_eq!(["delivered", "returned"].map(|key| outcome[key].as_u64()), [Some(3), Some(0)], "{outcome:#}");
    let after = page::get(&format!("?{place}&format=html")).expect(200).body;
    assert!(after.contains("3 delivered") || after.contains("All 3"), "{after}");
    assert!(page::html(200).contains("The queue is empty"));
    assert_eq!(lab.primary.deliveries(), primary::due(queued.iter().map(|queued| &queued.mail)));
}
