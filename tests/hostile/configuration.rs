//! A configuration names commands: root obeys none that another user could have written.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::Machine;
use crate::{among_own_mounts, is_root};

/// The web server's user on Debian.
const WWW_DATA: u32 = 33;

/// What is done to a configuration.
type Spoil<'a> = &'a dyn Fn(&Path);

/// A machine with its configuration in a folder of its own, and a lister that leaves a mark.
fn machine() -> (Machine, PathBuf) {
    let machine = Machine::with_fixture("postfix/empty-json");
    replace_lister(&machine);
    fs::set_permissions(machine.path(""), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(machine.path("etc")).unwrap();
    fs::rename(machine.path("bartleby.toml"), machine.path("etc/bartleby.toml")).unwrap();
    let configuration = machine.path("etc/bartleby.toml");
    (machine, configuration)
}

/// A lister of its own, which leaves a mark: what the last one listed is shared with nobody.
fn replace_lister(machine: &Machine) {
    let mark = format!("#!/bin/sh\necho > {}\n", machine.path("was-run").display());
    fs::write(machine.path("list"), mark).unwrap();
}

fn list(machine: &Machine, configuration: &Path) -> (Option<i32>, String) {
    let output = machine.command().env("BARTLEBY_CONFIG", configuration).arg("list").output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn root_refuses_a_configuration_that_another_user_could_change_and_says_how_to_mend_it() {
    if !is_root() {
        return;
    }
    let of_www_data = |path: &Path| chown(path, Some(WWW_DATA), None).unwrap();
    let spoil: [(&str, Spoil<'_>); 6] = [
        ("etc/bartleby.toml belongs to user 33", &of_www_data),
        ("etc/bartleby.toml can be written to by others", &|file| mode(file, 0o664)),
        ("etc belongs to user 33", &|file| of_www_data(file.parent().unwrap())),
        ("etc can be written to by others", &|file| mode(file.parent().unwrap(), 0o777)),
        ("etc/bartleby.toml belongs to user 33", &|file| {
            fs::rename(file, file.with_extension("real")).unwrap();
            symlink(file.with_extension("real"), file).unwrap();
            lchown(file, Some(WWW_DATA), None).unwrap();
        }),
        ("etc/bartleby.real can be written to by others", &|file| {
            fs::rename(file, file.with_extension("real")).unwrap();
            symlink("bartleby.real", file).unwrap();
            mode(&file.with_extension("real"), 0o602);
        }),
    ];
    for (reason, spoil) in spoil {
        let (machine, configuration) = machine();
        assert_eq!(list(&machine, &configuration).0, Some(0), "as it should be");
        fs::remove_file(machine.path("was-run")).unwrap();
        spoil(&configuration);

        let (code, said) = list(&machine, &configuration);
        assert!(code == Some(78) && said.contains(configuration.to_str().unwrap()), "{reason}: {code:?} {said}");
        assert!(said.contains(&format!("{} ", machine.path(reason.split(' ').next().unwrap()).display())), "{said}");
        assert!(said.contains(reason), "{reason}: {said}");
        for words in [&["check"][..], &["doctor"], &["metrics"], &["watch", "--once"], &["flush"]] {
            let output = machine.command().env("BARTLEBY_CONFIG", &configuration).args(words).output().unwrap();
            assert_eq!(output.status.code(), Some(if words == ["check"] { 3 } else { 78 }), "{words:?}");
        }
        let variables = [("BARTLEBY_CONFIG", configuration.to_str().unwrap().as_bytes())];
        let page = machine.ask(&variables);
        assert!(page.status == 500 && page.body.contains(reason) && !page.body.contains("that line"), "{}", page.body);
        assert!(!machine.path("was-run").exists() && machine.flushes() == 0, "{reason}: it was obeyed");

        let (_, mend) = said.split_once("As root: ").unwrap();
        assert!(Command::new("sh").args(["-c", mend]).status().unwrap().success(), "{mend}");
        replace_lister(&machine);
        assert_eq!(list(&machine, &configuration).0, Some(0), "{mend}");
        assert!(machine.path("was-run").exists());
    }
}

#[test]
fn other_users_obey_their_configuration_as_before() {
    if !is_root() {
        return;
    }
    let (machine, configuration) = machine();
    mode(&machine.path("list"), 0o755);
    fs::write(machine.path("list"), "#!/bin/sh\n").unwrap();
    chown(&configuration, Some(WWW_DATA), None).unwrap();
    mode(configuration.parent().unwrap(), 0o777);
    let mut command = machine.command();
    command.env("BARTLEBY_CONFIG", &configuration).arg("list").uid(WWW_DATA).gid(WWW_DATA);
    assert_eq!(command.output().unwrap().status.code(), Some(0));
}

#[test]
fn root_refuses_the_usual_configuration_too() {
    if !is_root() {
        return;
    }
    // An /etc of this test's own, of which the file is the web server's.
    let (machine, configuration) = machine();
    chown(&configuration, Some(WWW_DATA), None).unwrap();
    fs::write(machine.path("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    let said = among_own_mounts(&format!(
        "mount --bind {} /etc && {} list; echo status $?",
        machine.path("etc").display(),
        env!("CARGO_BIN_EXE_bartleby")
    ));
    assert!(said.contains("/etc/bartleby.toml belongs to user 33") && said.contains("status 78"), "{said}");
    assert!(!machine.path("was-run").exists());
}
