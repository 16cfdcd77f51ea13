//! Hands the style sheet's hash to the program: its Content-Security-Policy names it.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const STYLE: &str = "src/view/html/style.css";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed={STYLE}");
    let style = std::fs::read(STYLE)?;
    println!("cargo::rustc-env=BARTLEBY_STYLE_HASH={}", STANDARD.encode(Sha256::digest(style)));
    Ok(())
}
