//! By which name the page may be called, in Apache's words and in the program's: they agree.

use std::fs;
use std::path::Path;

use crate::apache::SNIPPET;
use crate::http::{self, ALLOWED, Response};
use crate::machine::{HOSTNAME, Lab};
use crate::mta::run;
use crate::page;
use crate::wait;

/// An answer to a request by this name.
fn by(host: &str) -> Response {
    let request = format!("GET {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n", page::target("?format=text"));
    http::raw(ALLOWED, request.as_bytes()).unwrap()
}

/// Puts Apache's part into force.
fn with(snippet: &str) {
    fs::write(Path::new("/etc/apache2/conf-available").join(SNIPPET), snippet).unwrap();
    run("apache2ctl", &["restart"]);
    wait::until("Apache answers", 20, || page::try_json(200).map(drop));
}

/// Names that no stranger can have, and names that one could.
pub fn through_apache(_lab: &mut Lab) {
    let snippet = fs::read_to_string(Path::new("/etc/apache2/conf-available").join(SNIPPET)).unwrap();
    let any_name = snippet.replacen("Require expr \"%{HTTPS} == 'on'\"", "Require all granted", 1);
    assert_ne!(any_name, snippet);
    let own = HOSTNAME.to_uppercase();
    for (rules, refused) in [(&snippet, 403), (&any_name, 421)] {
        with(rules);
        for host in [
            "127.0.0.1",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:80",
            "localhost",
            "bartleby",
            "bartleby:80",
            "mx2.local",
            "a.b.internal",
            "x.home.arpa:80",
            "nas.lan",
            "nas.home",
            "mx.corp",
            "mx2.TEST",
            HOSTNAME,
            &own,
            &format!("{HOSTNAME}:80"),
            &format!("{HOSTNAME}."),
        ] {
            assert_eq!(by(host).status, 200, "{refused} {host}: {:?}", by(host));
        }
        for host in [
            "evil.example",
            "rebound.evil.example:80",
            "local.evil.example",
            "127.0.0.1.evil.example",
            "evil.xlocal",
            "evil.lan.example",
            &format!("{HOSTNAME}.evil.example"),
            &format!("x{HOSTNAME}"),
            "queue.example.org",
        ] {
            let answer = by(host);
            assert_eq!(answer.status, refused, "{host}: {answer:?}");
            let words = if refused == 403 { "bartleby.conf" } else { "hosts = [" };
            assert!(answer.body.contains(words), "{host}: {answer:?}");
        }
    }
    // Below the domains that Postfix relays, which only Postfix knows; and what the configuration adds.
    assert_eq!([by("queue.example.com").status, by("example.com.evil.example").status], [200, 421]);
    fs::write("/etc/bartleby.toml", "[access]\nhosts = [\"queue.example.org\"]\n").unwrap();
    assert_eq!([by("queue.example.org").status, by("x.queue.example.org").status], [200, 421]);
    // The line to add to the snippet is the one in its comment.
    let added = snippet.replacen(
        "#Require expr \"%{HTTP_HOST} =~ m#^queue\\.example\\.com",
        "Require expr \"%{HTTP_HOST} =~ m#^queue\\.example\\.org",
        1,
    );
    assert_ne!(added, snippet);
    with(&added);
    assert_eq!([by("QUEUE.example.org:80").status, by("queue.example.com").status], [200, 403]);
    // What the installation finds of this machine's names: below the domains that Postfix relays, from a table.
    let installed = Path::new("/etc/apache2/conf-available").join(SNIPPET);
    fs::remove_file(&installed).unwrap();
    let places = "PREFIX=/usr/local WWWDIR=/var/www/bartleby STATEDIR=/var/lib/bartleby";
    run("sh", &["-c", &format!("{places} sh /lab/apache/site.sh install")]);
    let written = fs::read_to_string(&installed).unwrap();
    with(&written.replacen("Require local", &format!("Require ip {ALLOWED}"), 1));
    for (host, status) in [
        ("queue.example.com", 200),
        ("Sub.Example.COM:80", 200),
        ("a.b.other.example.", 200),
        (HOSTNAME, 200),
        ("xexample.com", 403),
        ("example.com.evil.example", 403),
        ("queue.example.org", 403),
    ] {
        assert_eq!(by(host).status, status, "{host}: {written}");
    }
    // A name of the mail server's own.
    with(&any_name);
    run("postconf", &["-e", "myhostname=mx9.example.de"]);
    // Postfix's programs wait a while before they read a file that has just been changed.
    wait::until("Postfix has its new name", 20, || match by("mx9.example.de").status {
        200 => Ok(()),
        status => Err(status.to_string()),
    });
    assert_eq!(by("mx8.example.de").status, 421);
    run("postconf", &["-e", &format!("myhostname={HOSTNAME}")]);
    // The same in .htaccess, which has no ServerName.
    let folder = "/var/www/html/copy";
    fs::create_dir_all(folder).unwrap();
    crate::apache::install(folder);
    fs::copy("/lab/htaccess", format!("{folder}/.htaccess")).unwrap();
    with(&format!(
        "{snippet}<Directory {folder}>\n AllowOverride AuthConfig FileInfo Indexes Options=ExecCGI\n</Directory>\n"
    ));
    let copy = |host: &str| {
        http::raw(ALLOWED, format!("GET /copy/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
            .unwrap()
            .status
    };
    assert_eq!([copy("localhost"), copy("127.0.0.1:80"), copy("evil.example"), copy(HOSTNAME)], [200, 200, 403, 403]);
}
