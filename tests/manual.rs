//! The manual pages, `--help` and the completions say the same, and say it of the program as it is.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn help() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_bartleby")).arg("--help").output().unwrap();
    // Another program's options stand there, too.
    String::from_utf8(output.stdout).unwrap().replace("sudo -u", "sudo")
}

/// The options in a text, such as `--wait`, and those of one letter.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let is_option = |word: &&str| {
        let name = word.trim_start_matches('-');
        let dashes = word.len() - name.len();
        (dashes == 2 && name.len() > 1 || dashes == 1 && name.len() == 1) && name.starts_with(char::is_alphabetic)
    };
    words.filter(is_option).map(str::to_owned).collect()
}

/// The commands of the usage.
fn commands(help: &str) -> BTreeSet<String> {
    let usage = help.lines().filter_map(|line| line.split_once("bartleby ")).map(|(_, rest)| rest);
    let names = usage.filter_map(|rest| rest.split_whitespace().next()).filter(|word| !word.starts_with('-'));
    names.filter(|word| word.chars().all(|c| c.is_ascii_lowercase())).map(str::to_owned).collect()
}

#[test]
fn the_manual_page_and_the_help_name_the_same_options_and_commands() {
    let page = read("man/bartleby.8");
    // mdoc(7) writes "Fl -wait" and "Fl w".
    let in_page: BTreeSet<String> = page
        .lines()
        .flat_map(|line| {
            line.split(" ")
                .collect::<Vec<_>>()
                .windows(2)
                .map(|pair| [pair[0], pair[1]].map(str::to_owned))
                .collect::<Vec<_>>()
        })
        .filter(|[macro_name, _]| macro_name.ends_with("Fl"))
        .map(|[_, name]| format!("-{name}"))
        .collect();
    let of_help = options(&help());
    let missing: Vec<_> =
        of_help.difference(&in_page).filter(|option| !["-h", "-V"].contains(&option.as_str())).collect();
    assert!(missing.is_empty(), "not in the page: {missing:?}");
    // The long names of -w and -c are for the page alone.
    let unknown: Vec<_> = in_page
        .difference(&of_help)
        .filter(|option| !["-V", "-h", "--warning", "--critical"].contains(&option.as_str()))
        .collect();
    assert!(unknown.is_empty(), "not in the help: {unknown:?}");
    let commands = commands(&help());
    assert_eq!(commands.len(), 6, "{commands:?}");
    for command in &commands {
        assert!(
            page.contains(&format!(".It Cm {command}\n")) && page.contains(&format!(".Cm {command}\n")),
            "{command}"
        );
    }
    for file in ["completions/bartleby.bash", "completions/_bartleby", "completions/bartleby.fish"] {
        let text = read(file);
        for name in
            commands.iter().map(String::as_str).chain(of_help.iter().map(|option| option.trim_start_matches('-')))
        {
            assert!(text.contains(name), "{file} lacks {name}");
        }
    }
}

#[test]
fn every_option_of_the_page_is_understood() {
    for arguments in [
        &["list", "--format", "json", "--frobnicate"][..],
        &["list", "--watch", "--frobnicate"],
        &["flush", "--wait", "all", "--frobnicate"],
        &["watch", "--once", "--frobnicate"],
        &["metrics", "--frobnicate"],
        &["doctor", "--frobnicate"],
        &["--frobnicate"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_bartleby")).args(arguments).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(64) && told.contains("--frobnicate"), "{arguments:?}: {told}");
    }
}

#[test]
fn every_key_of_the_configuration_is_in_its_page() {
    let page = read("man/bartleby.toml.5");
    let mut keys = 0;
    for line in read("examples/bartleby.toml").lines() {
        if let Some(section) = line.strip_prefix('[') {
            assert!(page.contains(&format!(".Ss Section {}\n", section.trim_end_matches(']'))), "{section}");
        }
        let setting = line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        if let Some((key, _)) = setting.and_then(|setting| setting.split_once(" = ")) {
            keys += 1;
            let named =
                page.lines().any(|line| line.starts_with(".It Ic ") && line.split([' ', ',']).any(|word| word == key));
            assert!(named, "{key}");
        }
    }
    assert!(keys > 10);
}

#[test]
fn every_variable_that_is_read_is_in_the_page() {
    let page = read("man/bartleby.8");
    let gateway = read("src/cgi/gateway.rs");
    let code = gateway.split("#[cfg(test)]").next().unwrap();
    let names: BTreeSet<_> = code
        .split('"')
        // That one is the build's.
        .filter(|word| {
            *word != "BARTLEBY_STYLE_HASH" && word.len() > 5 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        })
        .collect();
    assert!(names.len() > 12, "{names:?}");
    for name in names {
        assert!(page.contains(name), "{name}");
    }
}

#[test]
fn mandoc_finds_nothing() {
    for page in ["man/bartleby.8", "man/bartleby.toml.5"] {
        let Ok(output) = Command::new("mandoc")
            .args(["-Tlint", "-Wall"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(page))
            .output()
        else {
            assert!(env::var("BARTLEBY_LAB").as_deref() != Ok("required"), "mandoc is required, but there is none.");
            let _ =
                writeln!(std::io::stderr(), "\n*** What mandoc thinks of {page} is SKIPPED: there is no mandoc ***\n");
            return;
        };
        let told = String::from_utf8(output.stdout).unwrap();
        // Which other manuals are installed is the machine's matter.
        let faults: Vec<_> = told.lines().filter(|line| !line.contains("referenced manual not found")).collect();
        assert!(faults.is_empty(), "{faults:#?}");
    }
}
