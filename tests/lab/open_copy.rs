//! A copy of the program that somebody dropped where everybody may come in: the web server lets them
//! in, the program does not.

use std::fs;

use crate::http::{self, ALLOWED, FORBIDDEN};
use crate::machine::Lab;
use crate::mails::Mail;
use crate::mta::run;
use crate::{apache, client, wait};

const FOLDER: &str = "/var/www/html/copy";

const OPEN: &str = "<Directory /var/www/html/copy>\n    \
    Options ExecCGI\n    AddHandler cgi-script .cgi\n    DirectoryIndex index.cgi\n    Require all granted\n\
    </Directory>\n";

/// From an address that is not listed it shows nothing, whatever the request claims.
pub fn shows_nothing(lab: &mut Lab) {
    let mail = Mail::new("one", "alice@example.org", &["larry@example.com"]);
    let queued = client::send(lab.mta, |_| vec![mail]);
    fs::create_dir_all(FOLDER).unwrap();
    apache::install(FOLDER);
    fs::write("/etc/apache2/conf-available/copy.conf", OPEN).unwrap();
    fs::write("/etc/bartleby.toml", format!("[access]\nallow = [\"{ALLOWED}/32\"]\n")).unwrap();
    run("a2enconf", &["--quiet", "copy"]);
    run("apache2ctl", &["restart"]);
    wait::until("the copy runs for the address that is listed", 20, || {
        let answer = http::get(ALLOWED, "/copy/?format=json").map_err(|error| error.to_string())?;
        (answer.status == 200 && answer.body.contains(&queued[0].id)).then_some(()).ok_or(format!("{answer:?}"))
    });

    for header in [
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-CGI-Remote-Addr", "127.0.0.1"),
        ("X-CGI-Remote-User", "root"),
        ("Bartleby-Access", "granted"),
        ("BARTLEBY_ACCESS", "granted"),
        ("Remote-Addr", "127.0.0.1"),
    ] {
        for query in ["", "?format=json", "?flush", "?nonsense=%ff", "?state=no-such-state"] {
            let answer = http::request(FORBIDDEN, "GET", &format!("/copy/{query}"), &[header]).unwrap();
            assert_eq!(answer.status, 403, "{header:?} {query}: {answer:?}");
            for secret in [&queued[0].id, "example.com", "larry"] {
                assert!(!answer.body.contains(secret), "{header:?} {query} shows {secret}: {}", answer.body);
            }
            assert!(answer.body.contains("BARTLEBY_ACCESS") && answer.body.contains("allow"), "{}", answer.body);
        }
    }
    let last = http::get(ALLOWED, "/copy/?format=json").unwrap().expect(200).body;
    assert!(last.contains("\"last\":null"), "a stranger has run the queue: {last}");
}
