//! What the program is made of: no crate needs a newer Rust than Cargo.toml and README.md say.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The crates of the locked graph, as far as this machine's kind needs them: those of the tests and the bench, too.
fn crates() -> Vec<Value> {
    let platform = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &platform])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let by_id: BTreeMap<_, _> =
        metadata["packages"].as_array().unwrap().iter().map(|package| (package["id"].as_str(), package)).collect();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    nodes.iter().map(|node| by_id[&node["id"].as_str()].clone()).collect()
}

/// `1.89` as numbers that compare.
fn version(text: &str) -> Vec<u64> {
    text.split('.').map(|number| number.parse().unwrap()).chain([0, 0]).take(3).collect()
}

#[test]
fn no_crate_needs_a_newer_rust_than_is_promised() {
    let promised = env!("CARGO_PKG_RUST_VERSION");
    let crates = crates();
    assert!(crates.len() > 50, "{}", crates.len());
    let text = |package: &'_ Value, key: &str| package[key].as_str().map(str::to_owned);
    let too_new: Vec<String> = crates
        .iter()
        .filter_map(|package| {
            let needed = text(package, "rust_version").filter(|needed| version(needed) > version(promised))?;
            Some(format!("{} {} needs Rust {needed}", text(package, "name")?, text(package, "version")?))
        })
        .collect();
    assert!(too_new.is_empty(), "Cargo.toml promises Rust {promised}: {too_new:#?}");
}

#[test]
fn the_readme_names_the_same_rust() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let named = readme.split("(Rust ").nth(1).and_then(|rest| rest.split(" or newer)").next());
    assert_eq!(named, Some(env!("CARGO_PKG_RUST_VERSION")));
}
