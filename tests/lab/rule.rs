//! The rules that are shipped, for sudo and for doas: each is installed as its own comment says, and is
//! tried for what it allows besides.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::example;
use crate::machine::BROUGHT;
use crate::mta::run;

const SUDO_RULE: &str = "/etc/sudoers.d/bartleby";
const DOAS_RULES: &str = "/etc/doas.conf";

/// Installs one for sudo, and nothing else.
pub fn install(name: &str) {
    adapt(name, &[]);
}

/// Installs one for sudo, with the rules in it that are behind a `#`, too.
pub fn install_all_of(name: &str) {
    adapt(name, &[("#www-data", "www-data")]);
}

fn adapt(name: &str, ours: &[(&str, &str)]) {
    example::install(name, SUDO_RULE, ours, "");
    fs::set_permissions(SUDO_RULE, Permissions::from_mode(0o440)).unwrap();
    // Nothing may be listed in there, but the rule be looked for.
    fs::set_permissions("/etc/sudoers.d", Permissions::from_mode(0o751)).unwrap();
    run("visudo", &["--check"]);
}

/// Installs those for doas, and nothing else.
pub fn install_doas() {
    fs::copy(Path::new(BROUGHT).join("doas.conf"), DOAS_RULES).unwrap();
    fs::set_permissions(DOAS_RULES, Permissions::from_mode(0o644)).unwrap();
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
