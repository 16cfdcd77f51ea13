//! A machine without what the program makes use of where it is there: name service switch, systemd, sudo, `/proc`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::apache::FOLDER;
use crate::client;
use crate::http::ALLOWED;
use crate::machine::Lab;
use crate::mails::Mail;
use crate::page;
use crate::wait;

/// What is taken away, where the machine has it.
const AWAY: [&str; 7] = [
    "/etc/nsswitch.conf",
    "/run/systemd",
    "/usr/bin/systemctl",
    "/usr/bin/journalctl",
    "/usr/bin/systemd-run",
    "/usr/bin/sudo",
    "/usr/bin/doas",
];

/// The page comes without each of them, and does not claim to know what only `/proc` tells.
pub fn of_all_but_a_mail_server(lab: &mut Lab) {
    let queued = client::send(lab.mta, |_| vec![Mail::new("one", "alice@example.org", &["larry@example.com"])]);
    let id = &queued[0].id;
    wait::until("the mail waits", 60, || page::try_json(200)?.message(id).map(drop).ok_or("not listed".into()));

    for path in AWAY.map(Path::new) {
        let _ = fs::remove_file(path);
        let _ = fs::remove_dir_all(path);
        assert!(!path.exists(), "{}", path.display());
    }
    assert!(page::html(200).contains(&**id));
    assert!(page::json(200).queue.complete);

    let without = answer("umount -l /proc && ! test -e /proc/self");
    assert_eq!(without["queue"]["complete"], true, "{without}");
    assert_eq!(without["messages"][0]["id"], **id, "{without}");
    // Its place is asked, and what is mounted there is not known.
    let disk = &without["filesystems"][0];
    assert_eq!((&disk["queue"], &disk["device"]), (&true.into(), &"?".into()), "{without}");
    assert!(disk["bytes_available"].is_u64(), "{without}");
    let with = answer("true");
    assert_ne!(with["filesystems"][0]["device"], "?", "{with}");
}

/// The JSON as the web server's user gets it, after a command of root's in a mount namespace of its own.
fn answer(before: &str) -> Value {
    let script = format!("{before} && exec setpriv --reuid=www-data --regid=www-data --init-groups \"$@\"");
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script, "sh"])
        .arg(Path::new(FOLDER).join("index.cgi"))
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .envs([("GATEWAY_INTERFACE", "CGI/1.1"), ("SERVER_PROTOCOL", "HTTP/1.1"), ("REQUEST_METHOD", "GET")])
        .envs([
            ("SERVER_NAME", "127.0.0.1"),
            ("SERVER_PORT", "80"),
            ("SCRIPT_NAME", "/"),
            ("BARTLEBY_ACCESS", "granted"),
        ])
        .env("REMOTE_ADDR", ALLOWED.to_string())
        .env("QUERY_STRING", "format=json")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, body) = text.split_once("\n\r\n").or_else(|| text.split_once("\n\n")).unwrap_or_else(|| {
        panic!("{text}{}", String::from_utf8_lossy(&output.stderr));
    });
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}
