//! The manual pages, `--help` and the completions say the same, and say it of the program as it is.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The name under which the usage's options without a command stand.
const NO_COMMAND: &str = "";

/// What can be written on a command line, by command: its options, the values that have a name, and the beginnings of
/// those that have one, as in `domain:`.
type Words = BTreeMap<String, BTreeSet<String>>;

fn set<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    words.into_iter().map(str::to_owned).collect()
}

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_bartleby")).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// The usage that `--help` prints: each command with its arguments, such as `[--format text|json|csv]` without the brackets.
fn usage() -> Vec<(String, Vec<String>)> {
    let (code, help) = run(&["--help"]);
    assert_eq!(code, Some(0), "{help}");
    let lines = help.lines().skip_while(|line| !line.starts_with("Usage: ")).take_while(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join(" ");
    let commands = text.split("bartleby ").skip(1).map(|line| {
        let (command, arguments) = match line.trim().split_once(' ') {
            _ if line.starts_with('-') => (NO_COMMAND, line),
            Some((command, arguments)) => (command, arguments),
            None => (line.trim(), ""),
        };
        let arguments = arguments.split(['[', ']']).map(str::trim).filter(|argument| !argument.is_empty());
        (command.to_owned(), arguments.map(str::to_owned).collect())
    });
    let commands: Vec<_> = commands.collect();
    assert!(commands.len() > 5, "{help}");
    commands
}

/// The fixed part of a word of the usage: nothing of `RANGE`, `domain:` of `domain:NAME`.
fn fixed(word: &str) -> &str {
    if word.starts_with('-') { word } else { word.trim_end_matches(|c: char| c.is_ascii_uppercase()) }
}

fn words_of_the_usage() -> Words {
    let mut words = Words::new();
    for (command, arguments) in usage() {
        let fixed = arguments.iter().flat_map(|argument| argument.split([' ', '|'])).map(fixed);
        words.entry(command).or_default().extend(set(fixed.filter(|word| !word.is_empty())));
    }
    words
}

/// What the section SYNOPSIS of the manual page names.
fn words_of_the_synopsis(page: &str) -> Words {
    let synopsis = page.split(".Sh SYNOPSIS\n").nth(1).unwrap().split(".Sh ").next().unwrap().replace("\\&", "");
    let mut words = Words::new();
    for usage in synopsis.split(".Nm\n").skip(1) {
        let mut command = NO_COMMAND;
        let mut macro_name = "";
        let mut found = BTreeSet::new();
        for word in usage.split_whitespace() {
            match (word.trim_start_matches('.'), macro_name) {
                (name @ ("Op" | "Cm" | "Fl" | "Ar" | "Ns"), _) => macro_name = name,
                ("|", _) | (_, "Ar") => {}
                (option, "Fl") => drop(found.insert(format!("-{option}"))),
                (name, "Cm") if command == NO_COMMAND && found.is_empty() => command = name,
                (value, _) => drop(found.insert(value.to_owned())),
            }
        }
        words.entry(command.to_owned()).or_default().extend(found);
    }
    words
}

/// The options and values that the list of commands in the manual page explains.
fn words_that_are_explained(page: &str) -> Words {
    let list = page.split("The commands are as follows:\n").nth(1).unwrap().split(".Sh ").next().unwrap();
    let mut words = Words::new();
    for item in list.split(".It Cm ").skip(1) {
        let lines = item.lines().skip(1).filter_map(|line| line.strip_prefix(".It Fl "));
        let options = lines.flat_map(|line| line.split(" Fl ")).flat_map(|line| {
            let (names, value) = line.split_once(" Ar ").or_else(|| line.split_once(" Cm ")).unwrap_or((line, ""));
            let names = names.split(" , ").map(|name| format!("-{name}"));
            let values =
                value.split(['|', ' ', ',']).filter(|word| !word.is_empty()).map(|word| fixed(word).to_owned());
            names.chain(values.filter(|word| !word.is_empty())).collect::<Vec<_>>()
        });
        words.insert(item.lines().next().unwrap().to_owned(), options.collect());
    }
    words
}

/// The words of a shell, without its quotes.
fn shell_words(text: &str) -> BTreeSet<String> {
    set(text.split([' ', '\'', '(', ')', '{', '}', ',', '[', '\n']).filter(|word| !word.is_empty()))
}

fn options(words: &BTreeSet<String>) -> BTreeSet<String> {
    words.iter().filter(|word| word.starts_with('-')).cloned().collect()
}

#[test]
fn the_manual_page_names_what_the_help_names_and_nothing_else() {
    let page = read("man/bartleby.8");
    let usage = words_of_the_usage();
    assert_eq!(words_of_the_synopsis(&page), usage);
    let explained = words_that_are_explained(&page);
    for (command, words) in &usage {
        let is_explained = |word: &String| match explained.get(command) {
            Some(explained) => explained.contains(word),
            None => {
                page.contains(&format!(".Fl {}\n", &word[1..])) || page.contains(&format!(".Pq Fl {}\n", &word[1..]))
            }
        };
        let lacking: Vec<_> = options(words).into_iter().filter(|option| !is_explained(option)).collect();
        assert!(lacking.is_empty(), "{command} {lacking:?}: not explained");
    }
    let commands: BTreeSet<_> = usage.into_keys().filter(|command| command != NO_COMMAND).collect();
    assert_eq!(explained.into_keys().collect::<BTreeSet<_>>(), commands);
}

#[test]
fn the_completions_offer_what_the_help_names_and_no_other_option() {
    let (bash, zsh, fish) =
        (read("completions/bartleby.bash"), read("completions/_bartleby"), read("completions/bartleby.fish"));
    // The arm of a shell's `case`.
    let arm = |text: &str, pattern: &str| {
        let begin = text.find(&format!("{pattern})"))? + pattern.len() + 1;
        Some(shell_words(text[begin..].split(";;").next().unwrap_or_default()))
    };
    let usage = words_of_the_usage();
    let commands: BTreeSet<_> = usage.keys().filter(|command| *command != NO_COMMAND).cloned().collect();
    for (command, words) in &usage {
        let has_none = words.is_empty();
        let (in_bash, in_zsh, where_in_fish) = if command == NO_COMMAND {
            let first = arm(&bash, "\"$current\"").unwrap();
            assert!(commands.is_subset(&first), "bash: {commands:?} and {first:?}");
            for command in &commands {
                assert!(zsh.contains(&format!("'{command}:")), "zsh: {command}");
                assert!(fish.contains(&format!("-n __fish_use_subcommand -a {command} ")), "fish: {command}");
            }
            let first_in_zsh = zsh.split("_describe command").nth(1).unwrap().split("return").next().unwrap();
            (first, shell_words(first_in_zsh), "__fish_use_subcommand".to_owned())
        } else {
            let values_of = |option: &String| arm(&bash, option).unwrap_or_default();
            let own = arm(&bash, &format!(" {command}"));
            let own: BTreeSet<_> =
                own.unwrap_or_default().union(&words.iter().flat_map(values_of).collect()).cloned().collect();
            (
                own,
                arm(&zsh, &format!(" {command}")).unwrap_or_default(),
                format!("'__fish_seen_subcommand_from {command}'"),
            )
        };
        let in_fish = fish.lines().filter(|line| line.contains(&where_in_fish)).flat_map(|line| {
            let pairs = line.split(' ').zip(line.split(' ').skip(1));
            let options = pairs.filter_map(|(kind, name)| match kind {
                "-s" => Some(format!("-{name}")),
                "-l" => Some(format!("--{name}")),
                _ => None,
            });
            let values = line.split_once("a '").map(|(_, values)| shell_words(values.split('\'').next().unwrap()));
            options.chain(values.into_iter().flatten()).collect::<Vec<_>>()
        });
        for (shell, offered) in [("bash", in_bash), ("zsh", in_zsh), ("fish", in_fish.collect())] {
            // zsh has a backslash before a colon.
            let offered: BTreeSet<_> = offered.iter().map(|word| word.replace('\\', "")).collect();
            assert!(words.is_subset(&offered), "{shell}, {command}: {words:?} and {offered:?}");
            assert_eq!(options(&offered), options(words), "{shell}, {command}");
            assert!(!has_none || offered.is_empty(), "{shell}, {command}: {offered:?}");
        }
    }
}

/// The command lines of the usage, each with one argument.
fn command_lines() -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    for (command, arguments) in usage().into_iter().filter(|(command, _)| command != NO_COMMAND) {
        lines.push(vec![command.clone()]);
        for argument in arguments {
            let (names, values) = match argument.split_once(' ') {
                _ if !argument.starts_with('-') => ("", argument.as_str()),
                Some((names, values)) => (names, values),
                None => (argument.as_str(), ""),
            };
            for (name, value) in names.split('|').flat_map(|name| values.split('|').map(move |value| (name, value))) {
                let value = if value == "N" { "1" } else { value };
                let value = value
                    .replace("NAME", "example.com")
                    .replace("URL", "http://localhost/bartleby/")
                    .replace("ID", "1")
                    .replace("RANGE", "10:20")
                    .replace("AGE", "5m");
                let words = [command.clone(), name.to_owned(), value];
                lines.push(words.into_iter().filter(|word| !word.is_empty()).collect());
            }
        }
    }
    lines
}

#[test]
fn every_argument_of_the_help_is_understood() {
    let lines = command_lines();
    assert!(lines.len() > 20, "{lines:?}");
    for line in lines {
        let arguments: Vec<&str> = line.iter().map(String::as_str).chain(["--frobnicate"]).collect();
        let (code, text) = run(&arguments);
        // A check's statuses are the monitor's.
        let not_understood = if line[0] == "check" { 3 } else { 64 };
        assert!(code == Some(not_understood) && text.contains("--frobnicate"), "{arguments:?}: {code:?} {text}");
    }
    for option in &words_of_the_usage()[NO_COMMAND] {
        assert_eq!(run(&[option]).0, Some(0), "{option}");
    }
}

#[test]
fn every_option_that_the_program_reads_is_in_the_help() {
    let in_help: BTreeSet<_> = words_of_the_usage().into_values().flatten().collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli");
    let files = fs::read_dir(folder).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let mut count = 0;
    for code in files {
        for (dashes, begin, end) in [("--", "Long(\"", '"'), ("-", "Short('", '\'')] {
            for name in code.split(begin).skip(1).filter_map(|rest| rest.split(end).next()) {
                count += 1;
                assert!(in_help.contains(&format!("{dashes}{name}")), "{dashes}{name}");
            }
        }
    }
    assert!(count > 10, "only {count}");
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
