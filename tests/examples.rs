//! The example files say what the program does.

#![allow(clippy::expect_used, reason = "a test says so when its own steps fail")]

use std::fs;
use std::path::Path;

use bartleby::config::Config;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bartleby.toml");

#[test]
fn the_example_configuration_changes_nothing() {
    let read = Config::read(Path::new(EXAMPLE)).expect(EXAMPLE);
    assert_eq!(read, Config { file: Some(EXAMPLE.into()), ..Config::default() });
}

#[test]
fn every_setting_of_the_example_configuration_can_be_used() {
    let text = fs::read_to_string(EXAMPLE).expect(EXAMPLE);
    let mut settings = 0;
    let used: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            // A setting stands right behind the "#", a remark after a space.
            Some(setting) if setting.starts_with(|first: char| first.is_ascii_lowercase()) => {
                settings += 1;
                setting
            }
            _ => line,
        })
        .collect();
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let file = folder.path().join("bartleby.toml");
    fs::write(&file, used.join("\n")).expect("write");
    let config = Config::read(&file).expect("every setting of the example");
    assert_ne!(config, Config::default());
    assert_eq!(settings, 18, "the example has every setting");
    // Those that show their default show the right one.
    let default = Config::default();
    assert_eq!(config.mta.deadline, default.mta.deadline);
    assert_eq!(config.flush, default.flush);
    assert_eq!(config.access.allow, default.access.allow);
    assert_eq!(config.disk, default.disk);
}

#[test]
fn the_units_command_is_one_of_the_programs() {
    let unit =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bartleby-watch.service")).expect("unit");
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let mut words = command.split(' ');
    assert_eq!(words.next(), Some("/usr/local/sbin/bartleby"), "where make install puts it");
    let program = std::process::Command::new(env!("CARGO_BIN_EXE_bartleby"))
        .args(words)
        .env("BARTLEBY_CONFIG", "/nonexistent/bartleby.toml")
        .output()
        .expect("start");
    // A mistake in the configuration; one in the arguments would be 64.
    assert_eq!(program.status.code(), Some(78), "{program:?}");
    assert!(!unit.contains("\nNoNewPrivileges=yes"));
}

#[test]
fn the_rules_are_for_the_one_command_and_hold_no_pattern() {
    let rules = |name: &str, begin: &str| -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let text = fs::read_to_string(path).expect(name);
        let all = text.lines().filter(|line| line.trim_start_matches('#').starts_with(begin));
        all.clone().for_each(|rule| assert!(!rule.contains(['^', '*', '?', '$', '!']), "sudo-rs takes none: {rule}"));
        all.filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    assert_eq!(rules("sudoers", "www-data "), ["www-data ALL=(root) NOPASSWD: /usr/local/sbin/bartleby as-root"]);
    let doas = "permit nopass www-data as root cmd /usr/local/sbin/bartleby args as-root";
    assert_eq!(rules("doas.conf", "permit "), [doas]);
}
