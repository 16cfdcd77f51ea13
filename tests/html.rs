//! Every kind of page goes through a real validator: the Nu Html Checker (`npm install vnu-jar`, needs
//! Java), at `$VNU_JAR` or under `target/vnu`. Where it is not there, this is skipped, loudly; with
//! `BARTLEBY_LAB=required` it fails.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod machine;
#[path = "cgi/played.rs"]
#[allow(dead_code, reason = "not every moody primary is met here")]
mod played;

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use machine::Machine;
use played::{Played, refuses};

fn validator() -> Option<PathBuf> {
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/vnu/node_modules/vnu-jar/build/dist/vnu.jar");
    let jar = env::var_os("VNU_JAR").map_or(usual, PathBuf::from);
    let java = Command::new("java").arg("-version").output().is_ok_and(|output| output.status.success());
    (jar.is_file() && java).then_some(jar)
}

#[test]
fn every_kind_of_page_is_valid_html() {
    let Some(jar) = validator() else {
        let skipped = "SKIPPED: the pages were not validated, as there is no Nu Html Checker (npm install --prefix target/vnu vnu-jar) or no java\n";
        assert_ne!(env::var("BARTLEBY_LAB").as_deref(), Ok("required"), "{skipped}");
        // Written past libtest, which would keep it to itself.
        std::io::stderr().write_all(skipped.as_bytes()).unwrap();
        return;
    };
    let pages = tempfile::tempdir().unwrap();
    let mut count = 0;
    let mut save = |page: String| {
        count += 1;
        fs::write(pages.path().join(format!("{count}.html")), page).unwrap();
    };
    let mixed = Machine::with_fixture("postfix/mixed-json");
    for query in ["", "per_page=2&page=3", "page=9", "q=nothing", "sort=sender&state=held", "flush=bogus", "page=x"] {
        save(mixed.get(&format!("{query}&format=html")).body);
    }
    mixed.get("flush");
    save(mixed.get("flushed=1&format=html").body);
    save(mixed.ask(&[("BARTLEBY_ACCESS", b""), ("HTTP_ACCEPT", b"text/html")]).body);
    let primary = Played::new(refuses);
    save(primary.machine("").get("flush&format=html").body);
    primary.says(Some(|_| Some("554 not today\r\n".into())));
    let outage = primary.machine("");
    outage.command().args(["watch", "--once"]).output().unwrap();
    let receipt = outage.get("outage=1&format=html");
    assert_eq!(receipt.status, 200);
    save(receipt.body);
    for fixture in [
        "postfix/empty-json",
        "postfix/denied-list",
        "postfix/down-list-root-head",
        "sendmail/mixed-bp-verbose",
        "sendmail/mixed-quarantined",
        "sendmail/as-www-data-mailq-nnp",
    ] {
        save(Machine::with_fixture(fixture).get("format=html").body);
    }
    let many: String = (0..40).map(|n| format!("{{\"address\":\"r{n}@example.com\"}},")).collect();
    let line = format!(
        "{{\"queue_name\":\"active\",\"queue_id\":\"A1\",\"arrival_time\":0,\"message_size\":1,\"sender\":\"\\u0000\\ufffe<a b='\",\"recipients\":[{}]}}",
        many.trim_end_matches(',')
    );
    save(Machine::with_lister("postfix", &format!("cat <<'E'\n{line}\nE")).get("format=html").body);
    let output = Command::new("java")
        .args(["-jar".as_ref(), jar.as_os_str(), "--Werror".as_ref()])
        .arg(pages.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_dir(pages.path()).unwrap().count(), count);
}
