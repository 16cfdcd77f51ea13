//! The documents at the top of the project: their links lead somewhere, and so they do where they are installed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

const DOCUMENTS: [&str; 5] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap()
}

/// The documents in `docs`, each by its path.
fn in_docs() -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().into_string().unwrap()))
        .collect();
    found.sort();
    found
}

/// Where the links of a document lead within the project.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://")).collect()
}

#[test]
fn every_link_leads_to_a_file_of_the_project() {
    for document in DOCUMENTS.map(str::to_owned).into_iter().chain(in_docs()) {
        for link in links(&read(&document)) {
            let folder = Path::new(&document).parent().unwrap();
            assert!(root().join(folder).join(link).exists(), "{document}: {link}");
        }
    }
}

/// A block whose first line names a section of bartleby.toml.
#[test]
fn the_settings_that_documents_show_are_settings() {
    let mut seen = 0;
    for document in in_docs() {
        let text = read(&document);
        for block in text.split("\n\n").filter(|block| block.starts_with("    [")) {
            seen += 1;
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("bartleby.toml");
            let lines: Vec<_> = block.lines().map(str::trim_start).collect();
            fs::write(&file, lines.join("\n")).unwrap();
            let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_bartleby"));
            let output = check.arg("check").env("BARTLEBY_CONFIG", &file).output().unwrap();
            // EX_CONFIG of sysexits(3).
            assert_ne!(
                output.status.code(),
                Some(78),
                "{document}: {block}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn the_readme_links_every_other_document() {
    let readme = read("README.md");
    let links = links(&readme);
    assert!(in_docs().iter().all(|document| links.contains(&document.as_str())), "{links:?}");
    assert!(DOCUMENTS[1..].iter().all(|document| links.contains(document)), "{links:?}");
}

/// A path in backquotes that names a file of the project, such as `src/mta/mod.rs` or `mta/search.rs`.
#[test]
fn the_files_that_the_architecture_names_are_there() {
    let text = read("ARCHITECTURE.md");
    let words = text.split('`').skip(1).step_by(2);
    let paths: Vec<_> = words.filter(|word| word.contains('/') && word.ends_with(".rs")).collect();
    assert!(paths.len() > 20, "{paths:?}");
    for path in paths {
        assert!(root().join(path).is_file() || root().join("src").join(path).is_file(), "{path}");
    }
}

/// The table of layers and the map of the crate name the modules in the order that tests/layers.rs keeps.
#[test]
fn the_layers_are_the_same_everywhere() {
    let test = read("tests/layers.rs");
    let list = test.split("const LAYERS").nth(1).unwrap().split("= [").nth(1).unwrap().split(']').next().unwrap();
    let layers: Vec<_> = list.split('"').skip(1).step_by(2).collect();
    assert!(layers.len() > 10, "{layers:?}");
    let named = |text: &str, rows: &str| {
        let names = text.lines().filter_map(|line| line.strip_prefix(rows)?.split('`').nth(1).map(str::to_owned));
        names.filter(|name| layers.contains(&name.as_str())).take(layers.len()).collect::<Vec<_>>()
    };
    assert_eq!(named(&read("ARCHITECTURE.md"), "| "), layers);
    assert_eq!(named(&read("src/lib.rs"), "//! | "), layers);
}
