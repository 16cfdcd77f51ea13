//! `doctor` names the folder that should be used for what is remembered, why it is not, and how to get it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::machine::Machine;
use crate::{among_own_mounts, is_root};

/// A user that nobody has.
const SOMEBODY: u32 = 4242;

/// What `doctor` says of the state directory to a user, among an empty /var/lib, /run and /tmp, after this script. The
/// machine itself is in /mnt.
fn state_directory(user: u32, script: &str, configured: &str) -> String {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let text = fs::read_to_string(machine.path("bartleby.toml")).unwrap();
    let text = text.split("[state]").next().unwrap().replace(machine.path("").to_str().unwrap(), "/mnt/");
    fs::write(machine.path("bartleby.toml"), text + configured).unwrap();
    fs::set_permissions(machine.path(""), Permissions::from_mode(0o755)).unwrap();
    // The source may be in /tmp, or where only root comes. What another test starts just now must not inherit the copy while
    // it is written: a file that somebody has open for that can't be run.
    let copy = Command::new("cp").arg(env!("CARGO_BIN_EXE_bartleby")).arg(machine.path("program")).status().unwrap();
    assert!(copy.success());
    let said = among_own_mounts(&format!(
        "mount --bind {} /mnt && mount -t tmpfs -o mode=755 none /var/lib && mount -t tmpfs -o mode=755 none /run \
         && mount -t tmpfs -o mode=1777 none /tmp && {script} && BARTLEBY_CONFIG=/mnt/bartleby.toml \
         setpriv --reuid={user} --regid={user} --clear-groups /mnt/program doctor",
        machine.path("").display()
    ));
    let mut lines = said.lines().skip_while(|line| !line.contains("state directory: "));
    let found = lines.next().unwrap_or_else(|| panic!("{said}")).to_owned();
    // What to do, where something is wrong.
    let to_do = lines.take_while(|line| line.starts_with("      "));
    to_do.fold(
        found,
        |found, line| if line.trim_start().starts_with("To do: ") { found + line } else { found + " " + line.trim() },
    )
}

#[test]
fn doctor_names_the_default_folder_where_it_is_missing() {
    if !is_root() {
        return;
    }
    for (user, private) in [(0, "/run/bartleby-0-"), (SOMEBODY, "/tmp/bartleby-4242-")] {
        let said = state_directory(user, "true", "");
        assert!(said.starts_with(&format!("ok    state directory: {private}")), "{said}");
        assert!(said.ends_with(", as there is no /var/lib/bartleby, which make install makes"), "{said}");
    }
    let said = state_directory(SOMEBODY, "install -d -o 4242 -m 700 /var/lib/bartleby", "");
    assert_eq!(said, "ok    state directory: /var/lib/bartleby");
}

#[test]
fn doctor_names_the_folder_that_is_not_used_and_why_and_the_fix() {
    if !is_root() {
        return;
    }
    let fix = "      To do: As root: install -d -o 4242 -m 700 /var/lib/bartleby";
    for (script, why) in [
        ("install -d -m 700 /var/lib/bartleby", "/var/lib/bartleby belongs to user 0, not to 4242"),
        ("install -d -o 4242 -m 777 /var/lib/bartleby", "/var/lib/bartleby can be written to by others"),
        ("echo > /var/lib/bartleby", "/var/lib/bartleby is not a folder"),
        ("ln -s nowhere /var/lib/bartleby", "/var/lib/bartleby is not a folder"),
    ] {
        let said = state_directory(SOMEBODY, script, "");
        assert!(said.starts_with("FAIL  state directory: /tmp/bartleby-4242-"), "{said}");
        assert!(said.ends_with(&format!(" is used instead, as {why}{fix}")), "{said}");
        // What the configuration names is used, or nothing is.
        let said = state_directory(SOMEBODY, script, "[state]\ndirectory = \"/var/lib/bartleby\"\n");
        let none = "FAIL  state directory: no folder is usable, so the cool-down is off: ";
        assert_eq!(said, format!("{none}{why}{fix}"));
    }
    let said = state_directory(SOMEBODY, "true", "[state]\ndirectory = \"/var/lib/no/such\"\n");
    assert!(
        said.contains("is off: /var/lib/no/such: No such file") && said.contains("-m 700 /var/lib/no/such"),
        "{said}"
    );
}
