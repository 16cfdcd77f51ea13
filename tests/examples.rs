//! The example files say what the program does.

#![allow(clippy::expect_used, clippy::panic, reason = "a test says so when its own steps fail")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

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
    assert_eq!(settings, 19, "the example has every setting");
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
    let program = Command::new(env!("CARGO_BIN_EXE_bartleby"))
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

/// The command of the cron file, with its user; what cron(8) itself asks of such a file is checked on the way.
fn cron_line() -> (String, String) {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bartleby-watch.cron")).expect("cron");
    assert!(text.ends_with('\n'), "cron ignores a last line without its end");
    let is_said = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let lines: Vec<_> = text.lines().filter(is_said).collect();
    let [variable, line] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!(*variable, "MAILTO=\"\"", "no mail into the queue that this is about");
    let words: Vec<_> = line.splitn(7, ' ').collect();
    let [minute, hour, day, month, weekday, user, command] = words.as_slice() else { panic!("{words:?}") };
    assert_eq!([minute, hour, day, month, weekday].map(|field| **field == *"*"), [true; 5], "each minute");
    assert!(!command.contains('%'), "cron takes it for a line end");
    ((*user).to_owned(), (*command).to_owned())
}

#[test]
fn the_cron_files_command_is_the_units() {
    let unit =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bartleby-watch.service")).expect("unit");
    let of_unit = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).expect(key).to_owned();
    assert_eq!(cron_line(), (of_unit("User="), of_unit("ExecStart=")));
}

/// With the targets that a machine with systemd has, as empty ones, and the program where make install puts it.
#[test]
fn systemd_takes_the_units_as_shipped() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        assert!(std::env::var("BARTLEBY_LAB").as_deref() != Ok("required"), "there is no systemd-analyze");
        // libtest does not capture this.
        let _ = writeln!(
            std::io::stderr(),
            "\n*** What systemd thinks of the units is SKIPPED: there is no systemd-analyze ***\n"
        );
        return;
    };
    assert!(version.status.success());
    let root = tempfile::TempDir::new().expect("a temporary folder");
    let units = root.path().join("etc/systemd/system");
    fs::create_dir_all(&units).expect("units");
    fs::create_dir_all(root.path().join("usr/local/sbin")).expect("sbin");
    fs::copy(env!("CARGO_BIN_EXE_bartleby"), root.path().join("usr/local/sbin/bartleby")).expect("copy");
    for target in ["sysinit", "basic", "network-online", "shutdown", "timers", "time-sync", "time-set"] {
        fs::write(units.join(format!("{target}.target")), "[Unit]\nDescription=x\n").expect("target");
    }
    fs::write(units.join("system.slice"), "[Unit]\nDescription=x\n[Slice]\n").expect("slice");
    let names = ["bartleby-watch.service", "bartleby-watch.timer"];
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let shipped = names.map(|name| (name, fs::read_to_string(examples.join(name)).expect(name)));
    let said = |shipped: &[(&str, String)]| {
        shipped.iter().for_each(|(name, text)| fs::write(units.join(name), text).expect(name));
        let mut verify = Command::new("systemd-analyze");
        let output = verify.arg(format!("--root={}", root.path().display())).arg("verify").args(names).output();
        let output = output.expect("systemd-analyze");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(said(&shipped), (true, String::new()));
    let broken = shipped.clone().map(|(name, text)| (name, text.replace("oneshot", "one").replace("1min", "soon")));
    assert_eq!(said(&broken).1.matches("Failed to parse").count(), 2, "what is wrong is found: {:?}", said(&broken));
}
