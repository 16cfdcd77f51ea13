//! A remedy is pasted into a root shell.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::machine::Machine;
use crate::{ODD, SPECIAL, among_own_mounts, is_root, names, word};

/// All that is to be done, in every form that says so.
fn remedies(machine: &Machine) -> Vec<String> {
    let run = |words: &[&str]| String::from_utf8(machine.command().args(words).output().unwrap().stdout).unwrap();
    let doctor = run(&["doctor"]);
    let page = machine.get("format=html").body;
    let page = scraper::Html::parse_document(&page);
    let selector = scraper::Selector::parse("div.remedy").unwrap();
    let steps = scraper::Selector::parse("p, pre").unwrap();
    let lines = |step: scraper::ElementRef<'_>| {
        let text: String = step.text().collect();
        let paste = if step.value().name() == "pre" { PASTE } else { "" };
        text.lines().map(|line| format!("{paste}{line}")).collect::<Vec<_>>()
    };
    let mut found: Vec<String> = page
        .select(&selector)
        .map(|remedy| remedy.select(&steps).flat_map(lines).collect::<Vec<_>>().join("\n"))
        .collect();
    found.extend(in_text(&doctor).into_iter().chain(in_text(&run(&["list"]))));
    in_json(&serde_json::from_str(&machine.get("format=json").body).unwrap(), &mut found);
    found
}

/// What begins a line to paste.
const PASTE: &str = "    ";

/// What stands in the lines that say so, and in the indented ones behind them.
fn in_text(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut indent = None;
    for line in text.lines() {
        if let Some((_, first)) = line.split_once("To do: ").or(line.split_once("REMEDY: ")) {
            // `doctor` indents its remedies.
            indent = Some(if line.starts_with(' ') { "        " } else { "" });
            found.push(first.to_owned());
        } else if let Some((indent, last)) = indent.zip(found.last_mut())
            && let Some(rest) = line.strip_prefix(indent).filter(|rest| !indent.is_empty() || rest.starts_with(PASTE))
        {
            *last += &format!("\n{rest}");
        } else {
            indent = None;
        }
    }
    found
}

/// The lines of a remedy that are to be pasted.
fn pasted(remedy: &str) -> String {
    remedy.lines().filter_map(|line| line.strip_prefix(PASTE)).map(|line| format!("{line}\n")).collect()
}

fn in_json(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("remedy").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| in_json(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| in_json(value, found)),
        _ => {}
    }
}

/// The arguments with a space in them, each in brackets, that the command in a remedy hands to any program. The
/// programs are played, in an empty folder where nothing else can have been done.
fn run_by_shell(remedy: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let programs = folder.path().join("programs");
    fs::create_dir(&programs).unwrap();
    for program in ["rm", "ls", "namei", "install", "umount", "stat", "du", "df", "id", "sort", "tail"] {
        let printf = "for word; do case $word in *' '*) printf '[%s]' \"$word\" >&2;; esac; done";
        fs::write(programs.join(program), format!("#!/bin/sh\n{printf}\n")).unwrap();
        fs::set_permissions(programs.join(program), Permissions::from_mode(0o755)).unwrap();
    }
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &pasted(remedy)]).current_dir(folder.path()).env_clear().env("PATH", &programs);
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{remedy}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(!folder.path().join("pwned").exists(), "{remedy}");
    String::from_utf8(output.stderr).unwrap()
}

/// Among these are remedies for this value, as one word of a command, and none that hold it in another way.
#[track_caller]
fn assert_quoted(remedies: &[String], value: &str) {
    let ours: Vec<_> = remedies.iter().filter(|remedy| remedy.contains("pwned")).collect();
    assert!(!ours.is_empty(), "{remedies:#?}");
    for remedy in ours {
        let words = run_by_shell(remedy);
        assert!(words.contains(&format!("[{value}]")), "{remedy}: {words}");
    }
}

/// Among these are remedies that leave a command out because of a value, and none that hold the value.
#[track_caller]
fn assert_left_out(remedies: &[String]) {
    assert!(remedies.iter().any(|remedy| remedy.contains("The command to paste is left out")), "{remedies:#?}");
    for remedy in remedies {
        assert!(!remedy.contains(['\u{1b}', '\u{202e}']), "{remedy:?}");
        // Nor a command behind it.
        assert!(!remedy.contains("pwned") || remedy.contains("is left out"), "{remedy}");
        assert!(!pasted(remedy).contains("pwned"), "{remedy}");
    }
}

/// A machine with this state directory, and nothing else that is wrong.
fn with_state(name: &str) -> Machine {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "");
    let text = fs::read_to_string(machine.path("bartleby.toml")).unwrap();
    let folder = serde_json::to_string(&machine.path(name)).unwrap();
    fs::write(
        machine.path("bartleby.toml"),
        text.split("[state]").next().unwrap().to_owned() + "[state]\ndirectory = " + &folder + "\n",
    )
    .unwrap();
    machine
}

#[test]
fn a_state_directory_in_a_remedy_is_one_word_or_left_out() {
    let machine = with_state(SPECIAL);
    fs::write(machine.path(SPECIAL), "a file in the way").unwrap();
    assert_quoted(&remedies(&machine), &machine.path(SPECIAL).to_string_lossy());
    let machine = with_state(ODD);
    fs::write(machine.path(ODD), "a file in the way").unwrap();
    assert_left_out(&remedies(&machine));
}

#[test]
fn a_damaged_database_in_a_remedy_is_one_word_or_left_out() {
    let damaged = |name: &str| {
        let machine = with_state(name);
        assert_eq!(machine.get("format=json").status, 200);
        for file in ["bartleby.db.damaged-1".to_owned(), format!("bartleby.db.damaged-{name}")] {
            fs::write(machine.path(name).join(file), "").unwrap();
        }
        machine
    };
    let machine = damaged(SPECIAL);
    assert_quoted(&remedies(&machine), &machine.path(SPECIAL).join("bartleby.db.damaged-1").to_string_lossy());
    assert_left_out(&remedies(&damaged(ODD)));
}

#[test]
fn a_configured_command_is_shown_as_a_shell_takes_it() {
    for name in [SPECIAL, ODD] {
        let machine = Machine::with_lister("exim", "echo exim: permission denied >&2; exit 1");
        fs::rename(machine.path("list"), machine.path(name)).unwrap();
        let text = fs::read_to_string(machine.path("bartleby.toml")).unwrap();
        let list = serde_json::to_string(&machine.path("list")).unwrap();
        let renamed = serde_json::to_string(&machine.path(name)).unwrap();
        fs::write(machine.path("bartleby.toml"), text.replace(&list, &renamed)).unwrap();
        for remedy in remedies(&machine) {
            assert!(!remedy.contains("pwned"), "a rule is for the mail server's own program: {remedy}");
        }
        let command = &machine.json().1["queue"]["command"];
        let shown = command.as_str().unwrap();
        assert!(!shown.contains(['\n', '\u{1b}', '\u{202e}']), "{shown:?}");
        assert!(name == ODD || shown == word(machine.path(name).to_str().unwrap()), "{shown}");
    }
}

#[test]
fn a_mount_point_in_a_remedy_is_one_word_or_left_out() {
    if !is_root() || !Path::new("/dev/fuse").exists() {
        return;
    }
    for name in [SPECIAL, ODD] {
        let machine = Machine::with_fixture("postfix/mixed-json");
        fs::create_dir(machine.path(name)).unwrap();
        // A dead mount, as in tests/disk.rs.
        let script = format!(
            "exec 9<>/dev/fuse && mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0,subtype=sshfs dead {} \
             && BARTLEBY_CONFIG={} {} doctor",
            word(machine.path(name).to_str().unwrap()),
            machine.path("bartleby.toml").display(),
            env!("CARGO_BIN_EXE_bartleby")
        );
        let told = in_text(&among_own_mounts(&script));
        match name {
            SPECIAL => assert_quoted(&told, machine.path(name).to_str().unwrap()),
            _ => assert_left_out(&told),
        }
    }
}

/// The remedies that `doctor` gives a user of this name.
fn told_to_user(name: &str, machine: &Machine) -> Vec<String> {
    fs::set_permissions(machine.path(""), Permissions::from_mode(0o755)).unwrap();
    fs::write(machine.path("passwd"), format!("root:x:0:0::/root:/bin/sh\n{name}:x:4242:4242::/:/bin/sh\n")).unwrap();
    let script = format!(
        "mount --bind {} /etc/passwd && BARTLEBY_CONFIG={} setpriv --reuid=4242 --regid=4242 --clear-groups {} doctor; \
         rm -rf /tmp/bartleby-4242-*",
        machine.path("passwd").display(),
        machine.path("bartleby.toml").display(),
        env!("CARGO_BIN_EXE_bartleby")
    );
    in_text(&among_own_mounts(&script))
}

#[test]
fn a_user_in_a_remedy_is_one_word_or_left_out() {
    if !is_root() {
        return;
    }
    let plain = told_to_user("web-data", &Machine::with_fixture("postfix/denied-list"));
    assert!(plain.iter().any(|remedy| remedy.contains(", web-data\"\n    postfix reload")), "{plain:#?}");
    for name in [SPECIAL, "x\u{1b}[31m\u{202e}pwned", "x\"$(id >pwned)", "x ALL=(ALL) NOPASSWD, pwned"] {
        // A line of Postfix' main.cf, one of sudoers, and a folder that this user can't make.
        for fixture in ["postfix/denied-list", "exim/as-www-data-bp"] {
            let told = told_to_user(name, &Machine::with_fixture(fixture));
            let odd: Vec<_> = told.iter().filter(|remedy| !remedy.contains("install -d")).cloned().collect();
            assert_left_out(&odd);
            if name == SPECIAL {
                let folder: Vec<_> = told.iter().filter(|remedy| remedy.contains("install -d")).cloned().collect();
                assert_quoted(&folder, name);
            }
        }
    }
}

#[test]
fn a_name_from_the_domain_name_system_is_no_part_of_a_record_to_paste() {
    if !is_root() {
        return;
    }
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "[primary]\ndomains = [\"example.com\", \"x'; id >pwned;\"]");
    fs::write(machine.path("resolv.conf"), format!("nameserver {}\n", names::ADDRESS)).unwrap();
    names::serve(ODD);
    let script = format!(
        "mount --bind {} /etc/resolv.conf && BARTLEBY_CONFIG={} {} doctor",
        machine.path("resolv.conf").display(),
        machine.path("bartleby.toml").display(),
        env!("CARGO_BIN_EXE_bartleby")
    );
    let text = among_own_mounts(&script);
    assert!(text.contains("which is no name of a host") && text.contains("is no name of a domain"), "{text}");
    assert!(in_text(&text).iter().all(|told| !told.contains("pwned")), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
}
