//! The rules that are shipped, for sudo and for doas: each is installed as its own comment says, and is
//! tried for what it allows besides.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::example;
use crate::machine::{self, BROUGHT};
use crate::mta::run;

const SUDO_RULE: &str = "/etc/sudoers.d/bartleby";
const DOAS_RULES: &str = "/etc/doas.conf";

/// Where the rule expects root's own copy of the program.
pub const PROGRAM: &str = "/usr/local/sbin/bartleby";

/// Installs the one rule for sudo, and nothing else.
pub fn install() {
    program();
    example::install("sudoers", SUDO_RULE, &[], "");
    fs::set_permissions(SUDO_RULE, Permissions::from_mode(0o440)).unwrap();
    check_sudoers();
}

/// Installs, in place of the one rule, those for this program of the mail server, which are behind a `#`.
pub fn install_for(program: &str) {
    let with = format!("NOPASSWD: {program} ");
    install_adapted("sudoers", SUDO_RULE, 0o440, "www-data", &with);
    check_sudoers();
}

/// Writes a shipped file with the rules that hold `with`, which are behind a `#`, in place of the one rule. Rules begin
/// with `begin`.
fn install_adapted(name: &str, path: &str, mode: u32, begin: &str, with: &str) {
    let shipped = fs::read_to_string(Path::new(BROUGHT).join(name)).unwrap();
    let mut rules = 0;
    let mut adapted = |line: &str| match line.strip_prefix('#') {
        Some(rule) if rule.starts_with(begin) && rule.contains(with) => {
            rules += 1;
            rule.to_owned()
        }
        _ if line.starts_with(begin) => format!("#{line}"),
        _ => line.to_owned(),
    };
    let text: String = shipped.lines().map(|line| adapted(line) + "\n").collect();
    assert!(rules > 0, "{name} has no rule with {with:?}");
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Takes all rules away.
pub fn remove() {
    for file in [SUDO_RULE, DOAS_RULES] {
        let _ = fs::remove_file(file);
    }
}

/// Root's own copy of the program, as `make install` puts it there.
pub fn program() {
    // One that runs can't be written to, but be replaced.
    let new = format!("{PROGRAM}.new");
    fs::copy(Path::new(BROUGHT).join(machine::PROGRAM), &new).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, PROGRAM).unwrap();
}

fn check_sudoers() {
    // Nothing may be listed in there, but the rule be looked for.
    fs::set_permissions("/etc/sudoers.d", Permissions::from_mode(0o751)).unwrap();
    run("visudo", &["-c"]);
}

/// Installs the one rule for doas, and nothing else.
pub fn install_doas() {
    program();
    example::install("doas.conf", DOAS_RULES, &[], "");
    fs::set_permissions(DOAS_RULES, Permissions::from_mode(0o644)).unwrap();
}

/// Installs, in place of the one rule, those for this program of the mail server, for doas.
pub fn install_doas_for(program: &str) {
    install_adapted("doas.conf", DOAS_RULES, 0o644, "permit", &format!("cmd {program} "));
}

/// A command that the web server's user runs.
pub fn as_web_server(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "www-data", "--regid", "www-data", "--clear-groups", "--", program]).args(arguments);
    command
}

/// Fails unless sudo allows each of the first command lines and nothing near them, and none of the others.
pub fn sudo_allows_only(allowed: &[&str], others: &[&str]) {
    is_exact(allowed, others, |argv| {
        let output = as_web_server("sudo", &[&["-n", "-l", "--"], argv].concat()).output().unwrap();
        output.status.success()
    });
}

/// The same for doas.
pub fn doas_allows_only(allowed: &[&str], others: &[&str]) {
    is_exact(allowed, others, |argv| {
        let output = as_web_server("doas", &[&["-C", DOAS_RULES], argv].concat()).output().unwrap();
        output.stdout.starts_with(b"permit nopass")
    });
}

fn is_exact(allowed: &[&str], others: &[&str], allows: impl Fn(&[&str]) -> bool) {
    for line in allowed {
        let argv: Vec<&str> = line.split(' ').collect();
        assert!(allows(&argv), "{line} is refused");
        for near in near(&argv) {
            let near: Vec<&str> = near.iter().map(String::as_str).collect();
            assert!(!allows(&near), "{near:?} is allowed, by the rule for {line}");
        }
    }
    for line in others {
        assert!(!allows(&line.split(' ').collect::<Vec<_>>()), "{line} is allowed");
    }
}

/// Command lines that a rule with a hole would allow, too: something more, something less, and what a
/// pattern may take for a part of its last word.
fn near(argv: &[&str]) -> Vec<Vec<String>> {
    let (last, start) = argv.split_last().unwrap();
    let with_last = |last: String| start.iter().map(|&word| word.to_owned()).chain([last]).collect::<Vec<_>>();
    let mut near = vec![
        argv.iter().copied().chain(["-C/tmp/x"]).map(str::to_owned).collect(),
        argv.iter().copied().chain([*last]).map(str::to_owned).collect(),
        argv[..1].iter().map(|&word| word.to_owned()).collect(),
        start.iter().map(|&word| word.to_owned()).collect(),
    ];
    near.extend([" -C/tmp/x", "\n-C/tmp/x", "\n", "/../x", ";x", "*"].map(|more| with_last(format!("{last}{more}"))));
    near
}
